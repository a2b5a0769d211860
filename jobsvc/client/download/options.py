"""Define how files are downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from typing import NamedTuple

from jobsvc.client.models import Exists, OnProgress


class DownloadOptions(NamedTuple):
    """How files are downloaded."""

    parallel: int = 4
    """Maximum connections at the same time."""
    verify: bool = True
    """Whether a SHA-256 of the service is required before a file gets its name."""
    exists: Exists = "error"
    """What to do if the target exists."""
    progress: OnProgress | None = None
    """Called about ten times a second, by the thread that started the download."""
    stop: Event | None = None
    """If set, the download ends with Stopped; it can be continued later."""


def output_names(output: str | Iterable[str] | None) -> list[str]:
    """Return the outputs that the caller names: one, several, or None for all."""
    if output is None:
        return []
    return [output] if isinstance(output, str) else list(output)
