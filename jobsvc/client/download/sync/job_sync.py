"""Copy the files of all completed jobs into a directory, continuing where the last run stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.sync.folder import Folder
from jobsvc.client.download.sync.http_service import HttpService
from jobsvc.client.download.sync.plan import NameTemplate
from jobsvc.client.download.sync.run import SyncRun
from jobsvc.client.download.sync.state import SyncSource, SyncState
from jobsvc.client.errors import SyncFailed
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
    """Yield each file as it is downloaded; `follow` continues with later jobs.

    Each version of a file is downloaded once. A file that was deleted or moved away here is not downloaded
    again until it is replaced on the service; `download` gets it back. A file that is replaced on the service
    replaces the one here, even if that was edited. What is deleted on the service stays here. A job is looked
    at again when its record or its main output has changed. Without the state `.jobsvc-sync.json`, files that
    are here already are compared by SHA-256, and downloaded only if they differ.

    A job that fails does not stop the others, and is tried again by the next sync. Raises SyncFailed at the
    end if there are such jobs; with `follow` a warning is logged for each, and once the jobs are listed the
    service can be away for a while. Raises at once Unauthorized, ConnectionFailed, Stopped, and DownloadError
    if the disk is full, if another process syncs into the directory, or if the directory belongs to another
    service.
    """
    template, folder, statuses = NameTemplate(name), Folder(Path(to)), tuple(sorted(set(status)))
    token_hash = hashlib.sha256(settings.token.encode()).hexdigest()[:8]
    with folder.locked():
        state = SyncState.load(folder.root, SyncSource(settings.base_url, name, statuses, token_hash))
        service = HttpService(transport, settings, statuses, options)
        run = SyncRun(service, state, template, folder, status=statuses)
        try:
            if follow:
                yield from run.run_pass_before_following()
                yield from run.follow()
            else:
                yield from run.run_pass()
        finally:
            state.save()
    if run.failures:
        raise SyncFailed(list(run.failures.items()))
