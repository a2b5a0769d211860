"""Remember what was downloaded into a directory, and how far the list of jobs was read.

The state is one JSON file in the directory. It is written to a temporary file that is renamed, so that a
crash leaves the previous state. What is not in it although it was downloaded is found again by its SHA-256.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple

from jobsvc.client.download.local.safe_files import create_new, read_regular
from jobsvc.client.download.sync.errors import StateNotSaved
from jobsvc.client.errors import DownloadError
from jobsvc.client.models import Job

OWN_PREFIX: Final = ".jobsvc-sync."
"""How all names begin that belong to the sync itself."""
STATE_NAME: Final = f"{OWN_PREFIX}json"
LOCK_NAME: Final = f"{OWN_PREFIX}lock"
FORMAT: Final = 1
LIST_MARGIN_S: Final = 3600.0
"""How much earlier than the newest known change the list is requested: the clocks of a farm differ."""
CLOCK_MARGIN_S: Final = 86400.0
"""The same if no change is known and this machine's clock is used: it can be in the wrong time zone."""
FULL_LIST_INTERVAL_S: Final = 7 * 86400.0
"""Seconds after which all jobs are listed again: one that was restored can have an old `updatedAt`."""
FORGET_AFTER_S: Final = 30 * 86400.0
"""Seconds after which a job that the service no longer lists is dropped from the state."""
SAVE_INTERVAL_S: Final = 2.0
"""Minimum seconds between two writes of the state while files are downloaded."""
SAVE_FACTOR: Final = 20.0
"""The same as a multiple of the time that the last write took: a million files take seconds."""

_VERSION: Final = re.compile(r"[?&]version=([A-Za-z0-9_-]+)", re.ASCII)
_MAX_STATE: Final = 1 << 30
"""Bytes; a million files have 100 MB."""
_GONE: Final = ""
"""The mark of a job that is no longer on the service."""


class SyncSource(NamedTuple):
    """What a directory is a copy of."""

    base_url: str
    name: str
    """The template of the names of files."""
    status: tuple[str, ...]
    """The states of jobs that are selected, sorted."""
    token_hash: str
    """Tells two tokens apart, because each sees other jobs; it says nothing about the token."""


class ListedJob(NamedTuple):
    """What of a job decides whether it is looked at again."""

    id: str
    status: str
    mark: str
    """Changes if the job's record or its main output changes."""
    updated_at: datetime


def listed_job(job: Job) -> ListedJob:
    """Return the part of a job that is compared with the state."""
    version = _VERSION.search(str(job.document.get("downloadUrl") or ""))
    updated = str(job.document.get("updatedAt") or job.updated_at.isoformat())
    return ListedJob(job.id, job.status, f"{updated} {version[1] if version else '-'}", job.updated_at)


class _Entry:
    """What is known of one job."""

    __slots__ = ("files", "mark", "missing_since")

    def __init__(
        self, mark: str | None = None, files: dict[str, str] | None = None, missing_since: float | None = None
    ) -> None:
        self.mark = mark
        """That of the job when all its files were downloaded; None if some may be missing."""
        self.files = files or {}
        """Entity tags of the versions that were downloaded, by the path below the directory."""
        self.missing_since = missing_since
        """When a complete list was without the job for the first time (seconds since the epoch)."""

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"mark": self.mark, "files": self.files}
        return document if self.missing_since is None else document | {"missingSince": self.missing_since}


class SyncState:
    """The state of one directory. One process at a time uses it, under the lock of the directory."""

    def __init__(self, path: Path, source: SyncSource) -> None:
        self._path = path
        self._source = source
        self._jobs: dict[str, _Entry] = {}
        self._updated_since: datetime | None = None
        """The newest change that was seen and whose job was looked at."""
        self._listed_at: float | None = None
        """When all jobs were listed (seconds since the epoch)."""
        self._is_saved = False
        self._next_save = 0.0

    @classmethod
    def load(cls, folder: Path, source: SyncSource) -> SyncState:
        """Read the state of a directory; a new one if there is none.

        Raises DownloadError if it is invalid, or belongs to another service or other names.
        """
        state = cls(folder / STATE_NAME, source)
        try:
            text = read_regular(state._path, _MAX_STATE)
        except FileNotFoundError:
            return state
        except OSError as exc:
            raise DownloadError(f"{state._path} cannot be read: {exc.strerror}.") from exc
        try:
            state._restore(json.loads(text))
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as exc:
            raise DownloadError(
                f"{state._path} is damaged. Delete it: files that are here already are compared with the"
                " service by their SHA-256 and not downloaded again."
            ) from exc
        return state

    def updated_since(self, now: float) -> datetime | None:
        """Return from when on changes have to be listed; None for all jobs."""
        if self._updated_since is None or self._listed_at is None:
            return None
        if not self._listed_at <= now < self._listed_at + FULL_LIST_INTERVAL_S:
            return None
        with suppress(OverflowError):  # the service says that it is the year 1
            return self._updated_since - timedelta(seconds=LIST_MARGIN_S)
        return None

    def is_done(self, job: ListedJob) -> bool:
        """Return whether all files of this state of the job were downloaded."""
        entry = self._jobs.get(job.id)
        return entry is not None and entry.mark == job.mark

    def files_of(self, job_id: str) -> Mapping[str, str]:
        """Return the entity tags of the files that were downloaded, by path below the directory."""
        entry = self._jobs.get(job_id)
        return {} if entry is None else entry.files

    def unfinished(self) -> list[str]:
        """Return the ids of the jobs that were begun, or failed, and are not done."""
        return [job_id for job_id, entry in self._jobs.items() if entry.mark is None]

    def job_ids(self) -> Iterable[str]:
        """Return the ids of all jobs that are known."""
        return self._jobs.keys()

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield each file that was downloaded: its path below the directory, and its job."""
        return ((path, job_id) for job_id, entry in self._jobs.items() for path in entry.files)

    def begin(self, job_id: str) -> None:
        """Record that files of a job may be missing, so that the next run looks at it again."""
        self._jobs.setdefault(job_id, _Entry()).mark = None
        self._is_saved = False

    def add_file(self, job_id: str, path: str, etag: str) -> None:
        """Record a file that is complete and on disk."""
        self._jobs.setdefault(job_id, _Entry()).files[path] = etag
        self._is_saved = False
        if monotonic() >= self._next_save:
            self.save()

    def finish(self, job: ListedJob, paths: Iterable[str] | None = None) -> None:
        """Record that a job is done; `paths` are those of all its files, None if it has none for now."""
        entry = self._jobs.setdefault(job.id, _Entry())
        entry.mark = job.mark
        if paths is not None:
            current = set(paths)
            entry.files = {path: etag for path, etag in entry.files.items() if path in current}
        self._is_saved = False

    def job_gone(self, job_id: str) -> None:
        """Record that a job is no longer on the service; its files stay."""
        if (entry := self._jobs.get(job_id)) is not None:
            entry.mark = _GONE
            self._is_saved = False

    def listed(self, job_ids: Iterable[str], newest: datetime | None, now: float, *, is_full: bool) -> None:
        """Record that jobs were listed, and that each was looked at; `newest` is their newest change.

        `is_full`: they are all of them. A job with a time in the future must not hide later changes.
        """
        if newest is not None:
            newest = min(newest, datetime.fromtimestamp(now, UTC))
            if self._updated_since is None or newest > self._updated_since:
                self._updated_since = newest
                self._is_saved = False
        if is_full:
            # Without a job, this clock has to do; it may be ahead of the one that dates jobs.
            self._updated_since = self._updated_since or datetime.fromtimestamp(now - CLOCK_MARGIN_S, UTC)
            self._listed_at = now
            self._forget_missing(set(job_ids), now)
            self._is_saved = False

    def save(self) -> None:
        """Write the state if it has changed. Raises StateNotSaved."""
        if self._is_saved:
            return
        started_at = monotonic()
        temporary = self._path.with_name(f"{STATE_NAME}.new")
        try:
            with TextIOWrapper(create_new(temporary), encoding="utf-8") as file:
                json.dump(self._document(), file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as exc:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StateNotSaved(f"{self._path} cannot be written: {exc.strerror}.") from exc
        self._is_saved = True
        finished_at = monotonic()
        self._next_save = finished_at + max(SAVE_INTERVAL_S, SAVE_FACTOR * (finished_at - started_at))

    def _forget_missing(self, job_ids: set[str], now: float) -> None:
        for job_id, entry in list(self._jobs.items()):
            if job_id in job_ids:
                entry.missing_since = None
            elif entry.missing_since is None:
                entry.missing_since = now
            elif now - entry.missing_since >= FORGET_AFTER_S:
                del self._jobs[job_id]

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "service": self._source.base_url,
            "name": self._source.name,
            "status": self._source.status,
            "token": self._source.token_hash,
            "updatedSince": None if self._updated_since is None else self._updated_since.isoformat(),
            "listedAt": self._listed_at,
            "jobs": {job_id: entry.document() for job_id, entry in self._jobs.items()},
        }

    def _restore(self, document: dict[str, Any]) -> None:
        if document["format"] != FORMAT:
            raise ValueError
        _check_source(self._path.parent, self._source, document["service"], document["name"])
        for job_id, stored in document["jobs"].items():
            files = {str(path): str(etag) for path, etag in stored["files"].items()}
            missing_since = stored.get("missingSince")
            self._jobs[job_id] = _Entry(
                stored["mark"], files, None if missing_since is None else float(missing_since)
            )
        # Other states, or another owner: there may be older jobs that the previous runs did not see.
        if (tuple(document["status"]), document["token"]) == (self._source.status, self._source.token_hash):
            since, listed_at = document["updatedSince"], document["listedAt"]
            self._updated_since = None if since is None else datetime.fromisoformat(since).astimezone(UTC)
            self._listed_at = None if listed_at is None else float(listed_at)
            self._is_saved = True


def _check_source(folder: Path, source: SyncSource, base_url: str, name: str) -> None:
    if base_url != source.base_url:
        raise DownloadError(
            f"{folder} has files of {base_url}, not of {source.base_url}. Sync into another directory."
        )
    if name != source.name:
        raise DownloadError(
            f"{folder} has files named by {name!r}, not by {source.name!r}. Use the same name, or sync into"
            " another directory."
        )
