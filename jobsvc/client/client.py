"""The blocking client; it needs the standard library alone.

All methods can be called from several threads. Closing an iterator early ends its request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from jobsvc.client import profile as profiles
from jobsvc.client.models import (
    Downloaded,
    Exists,
    File,
    Job,
    JobChanged,
    JobRemoved,
    Link,
    LogLines,
    LogReset,
    OnProgress,
    TokenInfo,
)
from jobsvc.client.protocol import api, job_log, waiting, watching
from jobsvc.client.transport.driver import iterate, run

if TYPE_CHECKING:
    from jobsvc.client.transport.http_transport import HttpTransport


class Client:
    """A connection to one service with one token."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        profile: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        ca_file: str | None = None,
    ) -> None:
        """Take what is missing from JOBSVC_URL, JOBSVC_TOKEN or JOBSVC_TOKEN_FILE, else from the profile.

        `timeout`: seconds without a byte until a connection counts as dead. `retries`: attempts after the
        first one. `ca_file`: PEM file of certificates to trust. Raises BadConfiguration.
        """
        self._settings = profiles.resolve(
            url, token, profile=profile, timeout=timeout, retries=retries, ca_file=ca_file
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        self._transport.close()

    def jobs(
        self,
        *,
        status: Iterable[str] = (),
        updated_since: datetime | str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Yield the token's jobs, newest first, page by page.

        `updated_since` is RFC 3339 or a datetime with a time zone. Raises Problem or ConnectionFailed.
        """
        operation = api.list_jobs(
            self._settings.retries, status=status, updated_since=updated_since, limit=limit
        )
        return iterate(operation, self._transport)

    def job(self, job_id: str, *, fresh: bool = False) -> Job:
        """Return a job; `fresh` reads the disk instead of the index. Raises JobNotFound."""
        return run(api.get_job(self._settings.retries, job_id, fresh=fresh), self._transport)

    def wait(
        self,
        *job_ids: str,
        timeout: float | None = None,
        on_change: Callable[[Job], object] | None = None,
        first_only: bool = False,
    ) -> list[Job]:
        """Wait until all jobs are final, or with `first_only` one of them; return all, failed ones too.

        `timeout` is in seconds. `on_change` is called with each new state. Raises WaitTimeout or JobNotFound.
        """
        operation = waiting.wait(job_ids, timeout=timeout, on_change=on_change, first_only=first_only)
        return run(operation, self._transport)

    def watch(self, *job_ids: str, status: Iterable[str] = ()) -> Iterator[JobChanged | JobRemoved]:
        """Yield the current state of the jobs, then each change; of all jobs if no id is given."""
        return iterate(watching.watch(job_ids, status=status), self._transport)

    def log(
        self, job_id: str, *, tail: int | None = None, follow: bool = False, errors: str = "replace"
    ) -> Iterator[LogLines | LogReset]:
        """Yield the log, or its last `tail` lines; with `follow` also later lines, until the job is final.

        `errors` is what becomes of bytes that are not UTF-8, as for bytes.decode: `surrogateescape` lets them
        be restored. With `follow` the service has replaced them. Raises OutputMissing if there is no log.
        """
        operation = job_log.read_log(self._settings.retries, job_id, tail=tail, follow=follow, errors=errors)
        return iterate(operation, self._transport)

    def files(self, job_id: str, *, output: Iterable[str] = ()) -> Iterator[File]:
        """Yield the files of a completed job, or of some of its outputs. Raises NotReady or OutputMissing."""
        return iterate(api.list_files(self._settings.retries, job_id, output=output), self._transport)

    def download(
        self,
        job_id: str,
        to: str | os.PathLike[str] | BinaryIO,
        *,
        output: str | Iterable[str] | None = None,
        archive: str | None = None,
        parallel: int = 4,
        verify: bool = True,
        exists: Exists = "error",
        progress: OnProgress | None = None,
    ) -> list[Downloaded]:
        """Download the files of a completed job; on return every byte is right and on disk.

        A single file is written to `to`, or into it if it is a directory or ends in a slash; several files
        are written below the directory `to`. `archive` is `tar` or `zip`: one archive instead of the files.
        An interrupted download is continued by the next call. `exists`: what to do if a target exists.
        If `to` is a binary stream, the single file or the archive is written to it while it is received:
        only the return says that the bytes are right.
        Raises Corrupt, DownloadError, Problem or ConnectionFailed.
        """
        from jobsvc.client.download.job_download import download_job  # noqa: PLC0415 - most uses need none
        from jobsvc.client.download.options import DownloadOptions, output_names  # noqa: PLC0415

        return download_job(
            self._transport,
            self._settings,
            job_id,
            to,
            output=output_names(output),
            archive=archive,
            options=DownloadOptions(parallel, verify, exists, progress),
        )

    def sync(
        self,
        to: str | os.PathLike[str],
        *,
        status: Iterable[str] = ("completed",),
        name: str = "{id}/{path}",
        follow: bool = False,
        progress: OnProgress | None = None,
    ) -> Iterator[Downloaded]:
        """Download what the directory `to` lacks of all completed jobs; yield each file.

        `follow` continues with jobs that complete later. Raises DownloadError if another process syncs into
        the same directory.
        """
        from jobsvc.client.download.options import DownloadOptions  # noqa: PLC0415 - most uses need none
        from jobsvc.client.download.sync import sync_jobs  # noqa: PLC0415

        return sync_jobs(
            self._transport,
            self._settings,
            to,
            status=status,
            name=name,
            follow=follow,
            options=DownloadOptions(progress=progress),
        )

    def link(
        self, job_id: str, *, expires_in: int = 3600, file: str | None = None, archive: str | None = None
    ) -> Link:
        """Create a URL that downloads without a token for `expires_in` seconds.

        `file` is `output` or `output/path`; `archive` is `tar` or `zip`; without both the main output.
        """
        operation = api.create_link(
            self._settings.retries,
            self._settings.base_url,
            job_id,
            expires_in=expires_in,
            file=file,
            archive=archive,
        )
        return run(operation, self._transport)

    def token_info(self) -> TokenInfo:
        """Return the token's id, owner, scopes and budgets. Raises Unauthorized."""
        return run(api.get_token_info(self._settings.retries), self._transport)

    @cached_property
    def _transport(self) -> HttpTransport:
        from jobsvc.client.transport.http_transport import HttpTransport  # noqa: PLC0415 - sockets: 15 ms

        return HttpTransport(self._settings)
