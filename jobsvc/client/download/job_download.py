"""Download the files of a job."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.local.part_file import PartPaths, part_paths
from jobsvc.client.download.local.placement import (
    already_exists,
    check_space,
    free_name,
    looks_identical,
    sync_directory,
)
from jobsvc.client.download.local.targets import targets_of
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.source import file_source
from jobsvc.client.download.stopping import stoppable
from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.current_files import CurrentFiles
from jobsvc.client.download.transfer.file_steps import FileSteps
from jobsvc.client.download.transfer.file_transfer import Transfer
from jobsvc.client.download.transfer.run import report_skipped, run_batch
from jobsvc.client.errors import DownloadError
from jobsvc.client.models import Downloaded, File
from jobsvc.client.protocol.api import list_files
from jobsvc.client.transport.driver import Transport, iterate


def download_job(
    transport: Transport,
    settings: ConnectionSettings,
    job_id: str,
    to: str | os.PathLike[str] | BinaryIO,
    *,
    output: Collection[str] = (),
    archive: str | None = None,
    options: DownloadOptions,
) -> list[Downloaded]:
    """Download all files of a job, or those of some outputs, or an archive (`tar`, `zip`) of them.

    A single file is written to `to`, or into it if it is a directory or ends in a slash; several files are
    written below the directory `to`. Of several files those that exist with the same bytes are left as they
    are: an earlier run may have finished them. If `to` is a binary stream, a single file or an archive is
    written to it while it is received, and Corrupt is raised after the last byte.
    """
    if not isinstance(to, (str, os.PathLike)):
        from jobsvc.client.download.streaming import stream_job  # noqa: PLC0415 - rarely used

        return [stream_job(transport, settings, job_id, to, output=output, archive=archive, options=options)]
    if archive is not None:
        from jobsvc.client.download.archive import download_archive  # noqa: PLC0415 - rarely used

        return [download_archive(transport, settings, job_id, to, archive, output=output, options=options)]
    operation = list_files(settings.retries, job_id, output=output, want_digests=options.verify)
    files: list[File] = list(iterate(stoppable(operation, options.stop), transport))
    items = list(zip(files, targets_of(files, to), strict=True))
    results = _download(transport, settings, items, options, keep_identical=len(items) > 1)
    return [result for _, result in sorted(results, key=itemgetter(0))]


def download_files(
    transport: Transport,
    settings: ConnectionSettings,
    items: Sequence[tuple[File, Path]],
    options: DownloadOptions,
    *,
    keep_identical: bool = True,
) -> Iterator[Downloaded]:
    """Download files, of any jobs, each to exactly its path; yield each once it is complete and verified.

    The directories must exist. With `keep_identical` a target that exists with the same size, modification
    time and SHA-256 is left as it is and yielded as skipped. The first error ends the download: Corrupt,
    DownloadError, Problem or ConnectionFailed; the next call continues it. Closing the iterator ends it, too.
    """
    results = _download(transport, settings, items, options, keep_identical=keep_identical)
    with closing(results):
        for _, result in results:
            yield result


def _download(
    transport: Transport,
    settings: ConnectionSettings,
    items: Sequence[tuple[File, Path]],
    options: DownloadOptions,
    *,
    keep_identical: bool,
) -> Generator[tuple[int, Downloaded], None, None]:
    """Yield the index of each item and its result."""
    targets = {target for _, target in items}
    if len(targets) < len(items):
        raise DownloadError("Several files have the same target.")
    transfers, skipped = list[Transfer](), list[tuple[int, Downloaded]]()
    for index, (file, target) in enumerate(items):
        found = _prepare(index, file, target, options, targets, keep_identical=keep_identical)
        if isinstance(found, Transfer):
            transfers.append(found)
        else:
            skipped.append((index, found))
    yield from skipped
    if not transfers:
        report_skipped([result for _, result in skipped], options.progress)
        return
    check_space((each.target, each.paths.part, each.source.size) for each in transfers if not each.exists)
    current = CurrentFiles(transport, settings.retries)
    steps = FileSteps(options, current.find_current, targets)
    batch = Batch(
        transport, settings.retries, transfers, steps, parallel=options.parallel, verify=options.verify
    )
    directories: dict[Path, None] = {}
    running = run_batch(batch, current, options)
    try:
        with closing(running):
            for transfer, result in running:
                if not result.skipped:
                    directories[result.path.parent] = None
                yield transfer.index, result
    finally:
        for directory in directories:
            sync_directory(directory)


def _prepare(
    index: int,
    file: File,
    target: Path,
    options: DownloadOptions,
    targets: set[Path],
    *,
    keep_identical: bool,
) -> Transfer | Downloaded:
    """Decide what is done about an existing target. Raises FileExists."""
    source = file_source(file)
    exists = os.path.lexists(target)
    if exists and options.exists == "skip":
        size = os.lstat(target).st_size
        return Downloaded(target, file.job_id, file.output, size, file.etag, None, skipped=True)
    is_kept = exists and keep_identical and looks_identical(target, source)
    if exists and not is_kept:
        if options.exists == "error":
            raise already_exists(target)
        if options.exists == "rename":
            target = free_name(target, source, targets)
    return Transfer(index, source, target, _part_paths(target, targets), exists=is_kept)


def _part_paths(target: Path, targets: set[Path]) -> PartPaths:
    """Return the paths of a part file that are no target of another file."""
    paths = part_paths(target)
    return part_paths(target, distinct=True) if targets & set(paths) else paths
