"""The client for asyncio, over aiohttp; the same methods as Client.

An iterator that is not read to its end keeps its request open until it is closed:

async with contextlib.aclosing(client.watch()) as changes:
    async for change in changes:
        ...
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Self

from jobsvc.client import profile as profiles
from jobsvc.client.download.in_thread import iterate_in_thread, run_in_thread
from jobsvc.client.download.job_download import download_job
from jobsvc.client.download.options import DownloadOptions, output_names
from jobsvc.client.download.sync import sync_jobs
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
from jobsvc.client.transport.aiohttp_transport import AiohttpTransport
from jobsvc.client.transport.async_driver import iterate, run
from jobsvc.client.transport.connecting import Connector
from jobsvc.client.transport.endpoint import parse_base_url
from jobsvc.client.transport.http_transport import HttpTransport


class AsyncClient:
    """A connection to one service with one token; belongs to the event loop that uses it first."""

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

        Needs no running event loop. Reads two small files in the calling thread: the profile and `ca_file`.
        `timeout`: seconds without a byte until a connection counts as dead. `retries`: attempts after the
        first one. `ca_file`: PEM file of certificates to trust. Raises BadConfiguration.
        """
        self._settings = profiles.resolve(
            url, token, profile=profile, timeout=timeout, retries=retries, ca_file=ca_file
        )
        self._transport = AiohttpTransport(self._settings)
        # Downloads use the blocking engine: aiohttp needs three times its processor time for the same bytes.
        self._connector = Connector(parse_base_url(self._settings.base_url), self._settings.ca_file)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the next request opens new ones, also on another event loop."""
        await self._transport.close()

    def jobs(
        self,
        *,
        status: Iterable[str] = (),
        updated_since: datetime | str | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Job, None]:
        """Yield the token's jobs, newest first, page by page.

        `updated_since` is RFC 3339 or a datetime with a time zone. Raises Problem or ConnectionFailed.
        """
        operation = api.list_jobs(
            self._settings.retries, status=status, updated_since=updated_since, limit=limit
        )
        return iterate(operation, self._transport)

    async def job(self, job_id: str, *, fresh: bool = False) -> Job:
        """Return a job; `fresh` reads the disk instead of the index. Raises JobNotFound."""
        return await run(api.get_job(self._settings.retries, job_id, fresh=fresh), self._transport)

    async def wait(
        self,
        *job_ids: str,
        timeout: float | None = None,  # noqa: ASYNC109 - as in Client; WaitTimeout has the states
        on_change: Callable[[Job], object] | None = None,
        first_only: bool = False,
    ) -> list[Job]:
        """Wait until all jobs are final, or with `first_only` one of them; return all, failed ones too.

        `timeout` is in seconds. `on_change` is called with each new state. Raises WaitTimeout or JobNotFound.
        """
        operation = waiting.wait(job_ids, timeout=timeout, on_change=on_change, first_only=first_only)
        return await run(operation, self._transport)

    def watch(
        self, *job_ids: str, status: Iterable[str] = ()
    ) -> AsyncGenerator[JobChanged | JobRemoved, None]:
        """Yield the current state of the jobs, then each change; of all jobs if no id is given."""
        return iterate(watching.watch(job_ids, status=status), self._transport)

    def log(
        self, job_id: str, *, tail: int | None = None, follow: bool = False, errors: str = "replace"
    ) -> AsyncGenerator[LogLines | LogReset, None]:
        """Yield the log, or its last `tail` lines; with `follow` also later lines, until the job is final.

        `errors` is what becomes of bytes that are not UTF-8, as for bytes.decode: `surrogateescape` lets them
        be restored. With `follow` the service has replaced them. Raises OutputMissing if there is no log.
        """
        operation = job_log.read_log(self._settings.retries, job_id, tail=tail, follow=follow, errors=errors)
        return iterate(operation, self._transport)

    def files(self, job_id: str, *, output: Iterable[str] = ()) -> AsyncGenerator[File, None]:
        """Yield the files of a completed job, or of some of its outputs. Raises NotReady or OutputMissing."""
        return iterate(api.list_files(self._settings.retries, job_id, output=output), self._transport)

    async def download(
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

        As `Client.download`, in threads; `progress` is called on the event loop. When the task is cancelled,
        the download is stopped before CancelledError is raised, and the next call continues it.
        """
        transport = HttpTransport(self._settings, self._connector)
        try:
            return await run_in_thread(
                lambda options: download_job(
                    transport,
                    self._settings,
                    job_id,
                    to,
                    output=output_names(output),
                    archive=archive,
                    options=options,
                ),
                DownloadOptions(parallel, verify, exists, progress),
                transport.abort,
            )
        finally:
            transport.close()

    def sync(
        self,
        to: str | os.PathLike[str],
        *,
        status: Iterable[str] = ("completed",),
        name: str = "{id}/{path}",
        follow: bool = False,
        progress: OnProgress | None = None,
    ) -> AsyncGenerator[Downloaded, None]:
        """Download what the directory `to` lacks of all completed jobs; yield each file.

        As `Client.sync`, in threads; `progress` is called on the event loop. Closing the iterator, or
        cancelling the task that waits for its next item, stops the download and waits until it has ended.
        """
        transport = HttpTransport(self._settings, self._connector)
        return iterate_in_thread(
            lambda options: sync_jobs(
                transport,
                self._settings,
                to,
                status=status,
                name=name,
                follow=follow,
                options=options,
            ),
            DownloadOptions(progress=progress),
            transport.abort,
        )

    async def link(
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
        return await run(operation, self._transport)

    async def token_info(self) -> TokenInfo:
        """Return the token's id, owner, scopes and budgets. Raises Unauthorized."""
        return await run(api.get_token_info(self._settings.retries), self._transport)
