"""Copy the files of all completed jobs into a directory, continuing where the last run stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.models import Downloaded
from jobsvc.client.transport.driver import Transport


def sync_jobs(
    transport: Transport,
    settings: ConnectionSettings,
    to: str | os.PathLike[str],
    *,
    status: Iterable[str] = ("completed",),
    name: str = "{id}/{path}",
    follow: bool = False,
    options: DownloadOptions,
) -> Iterator[Downloaded]:
    """Yield each file as it is downloaded; `follow` continues with later jobs. Raises DownloadError."""
    raise NotImplementedError
