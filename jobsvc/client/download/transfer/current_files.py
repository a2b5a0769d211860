"""Ask the service which version of a file is the current one, and for digests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Final

from jobsvc.client.download.source import Source, file_source
from jobsvc.client.download.transfer.responses import NOT_CURRENT, etag_matches, repr_digest
from jobsvc.client.download.transfer.verification import REPLACED
from jobsvc.client.errors import OutputMissing, Problem
from jobsvc.client.models import File
from jobsvc.client.protocol.api import list_files
from jobsvc.client.protocol.retry import send_with_retries
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport.driver import Transport, iterate, run

MAX_SINGLE: Final = 4
"""Files whose digests are requested one by one; for more of them the list of the job is read again."""


class CurrentFiles:
    """The files of jobs as they are now; a list is read once for all files that were replaced."""

    def __init__(self, transport: Transport, retries: int) -> None:
        self._transport = transport
        self._retries = retries
        self._lock = Lock()
        self._known: dict[tuple[str, str | None, str], File] = {}
        """By job, output and path."""

    def find_current(self, source: Source) -> Source:
        """Return the current version of a file. Raises OutputMissing if there is none."""
        key = source.job_id, source.output, source.path
        with self._lock:
            known = self._known.get(key)
            if known is None or known.etag == source.etag:
                self._list(source.job_id, [source.output or ""])
            known = self._known.get(key)
        if known is None:
            raise OutputMissing(
                "file-missing",
                404,
                f"{source.name} of job {source.job_id} was removed while it was downloaded.",
            )
        return file_source(known)

    def find(self, sources: Sequence[Source]) -> list[str | None]:
        """Return the SHA-256 of each file: None if it is not known, REPLACED if it has another version."""
        if len(sources) > MAX_SINGLE:
            return self._find_listed(sources)
        return [self._find_single(source) for source in sources]

    def _find_single(self, source: Source) -> str | None:
        request = Request(source.target, method="HEAD", headers={"Want-Repr-Digest": "sha-256=1"})
        try:
            response = run(send_with_retries(request, self._retries), self._transport)
        except Problem as exc:
            # Without a body it is not known what has happened: `find_current` raises a better error.
            if exc.status in NOT_CURRENT:
                return REPLACED
            raise
        if not etag_matches(response.headers.get("etag"), source.etag):
            return REPLACED
        return repr_digest(response.headers)

    def _find_listed(self, sources: Sequence[Source]) -> list[str | None]:
        outputs: dict[str, dict[str, None]] = {}
        for source in sources:
            outputs.setdefault(source.job_id, {})[source.output or ""] = None
        with self._lock:
            for job_id, names in outputs.items():
                self._list(job_id, names)
            return [self._listed_digest(source) for source in sources]

    def _listed_digest(self, source: Source) -> str | None:
        file = self._known.get((source.job_id, source.output, source.path))
        return file.sha256 if file is not None and file.etag == source.etag else REPLACED

    def _list(self, job_id: str, outputs: Iterable[str]) -> None:
        names = list(outputs)
        self._known = {
            key: file for key, file in self._known.items() if key[0] != job_id or key[1] not in names
        }
        operation = list_files(self._retries, job_id, output=names, want_digests=True)
        for file in iterate(operation, self._transport):
            self._known[file.job_id, file.output, file.path] = file
