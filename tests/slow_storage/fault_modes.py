"""Faults of the storage of tests.slow_storage.file_system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

METADATA_CALLS: Final = ("getattr", "open", "readdir")


@dataclass(frozen=True, slots=True)
class Fault:
    """What fails, and where."""

    path: str
    """Relative to the folder; everything below it is included."""
    calls: tuple[str, ...]
    """Out of getattr, open, read and readdir."""
    seconds: float = 0.0
    """Delay of each call."""
    error: int | None = None
    """The errno that the call fails with after the delay."""
    from_offset: int = 0
    """Reads that end before this byte succeed."""
    times: int | None = None
    """How often; None for always."""

    def applies_to(self, call: str, path: str, end: int) -> bool:
        """Return whether a call is affected; for a read, `end` is the offset of its end."""
        return (
            call in self.calls
            and (path == f"/{self.path}" or path.startswith(f"/{self.path}/"))
            and (call != "read" or end > self.from_offset)
        )
