"""What can go wrong with the storage of tests.slow_storage.file_system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

METADATA_CALLS: Final = ("getattr", "open", "readdir")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and where."""

    path: str
    """As it is within the folder; what lies beneath it is meant too."""
    calls: tuple[str, ...]
    """Out of getattr, open, read and readdir."""
    seconds: float = 0.0
    """By which each call is held up."""
    error: int | None = None
    """The errno that it ends with then."""
    from_offset: int = 0
    """Reads that end before this byte go well."""
    times: int | None = None
    """How often; None for always."""

    def applies_to(self, call: str, path: str, end: int) -> bool:
        """Whether a call goes wrong; of a read, `end` is where it ends."""
        return (
            call in self.calls
            and (path == f"/{self.path}" or path.startswith(f"/{self.path}/"))
            and (call != "read" or end > self.from_offset)
        )
