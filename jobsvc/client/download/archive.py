"""Download all files of a job as one archive, and verify it file by file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.archive_check import compare, read_tar, read_zip
from jobsvc.client.download.local.part_file import part_paths
from jobsvc.client.download.local.placement import already_exists, check_space, free_name, sync_directory
from jobsvc.client.download.local.targets import safe_parts, single_target
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.source import Source, archive_source, archive_target
from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.file_steps import FileSteps
from jobsvc.client.download.transfer.file_transfer import Transfer
from jobsvc.client.download.transfer.responses import NOT_CURRENT, Replaced
from jobsvc.client.download.transfer.run import report_skipped, run_batch
from jobsvc.client.download.transfer.verification import DigestPauses
from jobsvc.client.errors import DownloadError, Problem
from jobsvc.client.models import Downloaded, File
from jobsvc.client.protocol.api import list_files
from jobsvc.client.protocol.retry import send_with_retries
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport.driver import Transport, iterate, run

KINDS: Final = ("tar", "zip")
_LENGTH: Final = re.compile("[0-9]{1,18}", re.ASCII)


def download_archive(
    transport: Transport,
    settings: ConnectionSettings,
    job_id: str,
    to: str | os.PathLike[str],
    kind: str,
    *,
    output: Collection[str],
    options: DownloadOptions,
) -> Downloaded:
    """Download an archive (`tar` or `zip`) of all outputs of a job, or of some.

    It is written to `to`, or as `JOB.tar` into it if it is a directory or ends in a slash. Raises the same as
    `download_files`.
    """
    if kind not in KINDS:
        raise ValueError(f"archive is not one of {', '.join(KINDS)}: {kind!r}")
    archive = JobArchive(transport, settings.retries, job_id, kind, output, verify=options.verify)
    source = archive.find_current()
    target = single_target(to, safe_parts(f"{job_id}.{kind}")[-1])
    if os.path.lexists(target):
        if options.exists == "error":
            raise already_exists(target)
        if options.exists == "skip":
            size = target.lstat().st_size
            result = Downloaded(target, job_id, None, size, source.etag, None, skipped=True)
            report_skipped([result], options.progress)
            return result
        if options.exists == "rename":
            target = free_name(target, source, ())
    transfer = Transfer(0, source, target, part_paths(target))
    check_space([(target, transfer.paths.part, source.size)])
    steps = FileSteps(options, archive.find_current, inspect=archive.inspect)
    batch = Batch(transport, settings.retries, [transfer], steps, parallel=options.parallel, verify=False)
    ((_, result),) = run_batch(batch, None, options)
    sync_directory(target.parent)
    return result


class JobArchive:
    """An archive of a job's files, and the list of them."""

    def __init__(
        self,
        transport: Transport,
        retries: int,
        job_id: str,
        kind: str,
        output: Collection[str],
        *,
        verify: bool,
    ) -> None:
        """`verify`: compare the bytes of each file, and not only names, order and sizes."""
        self._transport = transport
        self._retries = retries
        self._job_id = job_id
        self.kind = kind
        self._output = output
        self._verify = verify

    def find_current(self, _previous: Source | None = None) -> Source:
        """Return the current version. Raises NotReady, OutputMissing or DownloadError."""
        target = archive_target(self._job_id, self.kind, self._output)
        headers = self._head(target)
        etag, length = headers.get("etag"), headers.get("content-length", "")
        if etag is None or not _LENGTH.fullmatch(length):
            raise DownloadError("The size or the version of the archive is missing: a proxy removes it.")
        has_ranges = headers.get("accept-ranges", "bytes").lower() != "none"
        return archive_source(self._job_id, target, etag, int(length), has_ranges=has_ranges)

    def inspect(self, batch: Batch, transfer: Transfer) -> None:
        """Compare a complete archive with the files of the job. Raises Corrupt, NotVerified or Replaced."""
        check = partial(batch.wait, 0.0)
        with transfer.opened.open("rb") as file:
            if self.kind == "zip":
                members = read_zip(file, verify=self._verify, check=check)
            else:
                members = read_tar(file, hashed=self._verify, check=check)
        compare(members, self.files(transfer.source, batch.wait))

    def files(self, source: Source, wait: Callable[[float], object]) -> list[File]:
        """Return the files of this version of the archive; if they are verified, with their digests.

        Waits for digests by `wait`. Raises Replaced if the archive has another version now, and NotVerified.
        """
        files = self._list()
        self._check_current(source)
        etags = [file.etag for file in files]
        pauses, missing = DigestPauses(), _missing(files)
        while self._verify and self.kind == "tar" and missing:
            wait(pauses.next([source]))
            files = self._list()
            if [file.etag for file in files] != etags:
                raise Replaced
            if len(missing) != len(missing := _missing(files)):
                pauses.reset()
        return files

    def _check_current(self, source: Source) -> None:
        try:
            self._head(source.target)
        except Problem as exc:
            if exc.status in NOT_CURRENT:
                raise Replaced from exc
            raise

    def _head(self, target: str) -> dict[str, str]:
        request = Request(target, method="HEAD")
        try:
            return dict(run(send_with_retries(request, self._retries), self._transport).headers)
        except Problem as exc:
            if exc.status in NOT_CURRENT:
                self._list()  # raises a better error: a response to HEAD has no body
            raise

    def _list(self) -> list[File]:
        operation = list_files(self._retries, self._job_id, output=self._output, want_digests=self._verify)
        return list(iterate(operation, self._transport))


def _missing(files: Sequence[File]) -> list[File]:
    """Return the files whose SHA-256 is not known; that of an empty file is not needed."""
    return [file for file in files if file.sha256 is None and file.size]
