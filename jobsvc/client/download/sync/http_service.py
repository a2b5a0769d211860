"""The requests of a sync, over a transport."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.job_download import download_files
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.stopping import Idle, stoppable, stoppable_stream
from jobsvc.client.models import Downloaded, File, Job, JobChanged, JobRemoved
from jobsvc.client.protocol import api, watching
from jobsvc.client.transport.driver import Transport, iterate, run


class HttpService:
    """The service that a directory is a copy of."""

    def __init__(
        self,
        transport: Transport,
        settings: ConnectionSettings,
        status: Sequence[str],
        options: DownloadOptions,
    ) -> None:
        """`status`: the states of the jobs that are selected."""
        self._transport = transport
        self._settings = settings
        self._status = status
        self._options = options._replace(exists="overwrite")

    def jobs(self, updated_since: datetime | None) -> Iterator[Job]:
        """Yield the selected jobs that were updated at or after a time."""
        operation = api.list_jobs(self._settings.retries, status=self._status, updated_since=updated_since)
        return iterate(stoppable(operation, self._options.stop), self._transport)

    def job(self, job_id: str) -> Job:
        """Return a job. Raises JobNotFound."""
        operation = api.get_job(self._settings.retries, job_id)
        return run(stoppable(operation, self._options.stop), self._transport)

    def files(self, job_id: str) -> list[File]:
        """Return the files of a job, and request their digests. Raises NotReady or OutputMissing."""
        operation = api.list_files(self._settings.retries, job_id, want_digests=True)
        return list(iterate(stoppable(operation, self._options.stop), self._transport))

    def watch(self) -> Iterator[JobChanged | JobRemoved | Idle]:
        """Yield the current state of each selected job and each change; Idle before each wait."""
        operation = watching.watch(status=self._status)
        return iterate(stoppable_stream(operation, self._options.stop), self._transport)

    def download(self, files: Sequence[tuple[File, Path]]) -> Iterator[Downloaded]:
        """Download files to their targets, and replace what is there; skip what is equal."""
        return download_files(self._transport, self._settings, files, options=self._options)
