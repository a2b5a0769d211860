"""Download the files of a job."""

from __future__ import annotations

import os
from collections.abc import Collection

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.models import Downloaded
from jobsvc.client.transport.driver import Transport


def download_job(
    transport: Transport,
    settings: ConnectionSettings,
    job_id: str,
    to: str | os.PathLike[str],
    *,
    output: Collection[str] = (),
    archive: str | None = None,
    options: DownloadOptions,
) -> list[Downloaded]:
    """Download all files of a job, or those of some outputs, or an archive (`tar`, `zip`) of them.

    A single file is written to `to`, or into it if it is a directory or ends in a slash; several files are
    written below the directory `to`.
    """
    raise NotImplementedError
