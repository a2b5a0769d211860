"""Define what the client returns: jobs, files, events, downloads. No I/O.

Named tuples instead of dataclasses: `dataclasses` takes 15 ms to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

UNFINISHED: Final = frozenset({"queued", "rendering"})

Document: TypeAlias = Mapping[str, Any]
"""A JSON object as the service sent it."""
Exists: TypeAlias = Literal["error", "skip", "overwrite", "rename"]
"""What to do if the target of a download exists."""


class Output(NamedTuple):
    """One output of a completed job."""

    name: str
    role: str
    kind: str
    """`file`, `sequence` or `directory`."""
    size: int | None
    """Bytes; None unless it is a file."""
    content_type: str | None


class Job(NamedTuple):
    """The state of a job."""

    id: str
    status: str
    """`queued`, `rendering`, `completed`, `failed` or `canceled`."""
    progress: float
    """Percent, 0 to 100."""
    created_at: datetime
    updated_at: datetime
    etag: str | None
    """Identifies this state; None in lists and events."""
    document: Document
    """All members as the service sent them; docs/api.md names them."""

    @property
    def done(self) -> bool:
        """Whether the farm has finished with the job."""
        return self.status not in UNFINISHED

    @property
    def error(self) -> str | None:
        """Why the job failed."""
        return self.document.get("error")

    @property
    def stalled(self) -> bool:
        """Whether the job is unfinished, and the farm has not written it for a long time."""
        return self.document.get("stalled") is True

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What exists of a completed job; empty in lists and events."""
        return tuple(
            Output(item["name"], item["role"], item["kind"], item.get("size"), item.get("contentType"))
            for item in self.document.get("outputs", ())
        )


class File(NamedTuple):
    """One file of a job's outputs."""

    job_id: str
    output: str
    path: str
    """Relative to the output's directory, with slashes."""
    frame: int | None
    size: int
    modified_at: datetime
    content_type: str
    etag: str
    """Identifies this version, with its quotes."""
    sha256: str | None
    """Hexadecimal; None until the service knows it."""


class Link(NamedTuple):
    """A URL that downloads without a token."""

    url: str
    """Absolute."""
    expires_at: datetime
    id: str
    """By which the operator can revoke it."""


class TokenInfo(NamedTuple):
    """What the service knows of the token."""

    id: str
    owner: str
    scopes: tuple[str, ...]
    label: str | None
    expires_at: datetime | None
    document: Document


class JobChanged(NamedTuple):
    """A job was added or changed, or exists already when watching starts."""

    job: Job


class JobRemoved(NamedTuple):
    """A job is gone, or no longer has one of the requested states."""

    job_id: str


class LogLines(NamedTuple):
    """The next part of a log; all of them joined are the log."""

    text: str
    """Whole lines, each with its line feed; or a part of a line that is very long or has no line feed yet."""


class LogReset(NamedTuple):
    """The log was truncated or replaced: the complete new log follows."""

    reason: str
    """`truncated` or `replaced`."""


class Downloaded(NamedTuple):
    """A file on this machine."""

    path: Path
    job_id: str
    output: str | None
    """None for an archive."""
    size: int
    etag: str
    sha256: str | None
    """Hexadecimal, verified; None if verification was turned off, or the file was skipped."""
    resumed_from: int = 0
    """Bytes that an earlier run had received."""
    seconds: float = 0.0
    skipped: bool = False
    """Whether the file existed and was left as it is."""


class Progress(NamedTuple):
    """The state of a download; of all its files, with the name of the latest one."""

    job_id: str
    name: str
    """The file that changed last."""
    received: int
    """Bytes of all files that are on disk."""
    total: int
    """Bytes of all files."""
    files_done: int
    files_total: int
    phase: str = "receiving"
    """`receiving`; `verifying` while only digests are missing; `done`."""


OnProgress: TypeAlias = Callable[[Progress], object]
