"""Write a file or an archive to a stream, such as standard output, in order, and verify it at the end."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import BinaryIO, Final

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.download.archive import JobArchive
from jobsvc.client.download.archive_check import Member, compare, read_tar
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.source import Source, file_source
from jobsvc.client.download.transfer.current_files import CurrentFiles
from jobsvc.client.download.transfer.ordered_stream import OrderedStream
from jobsvc.client.download.transfer.responses import Replaced
from jobsvc.client.download.transfer.verification import REPLACED, DigestPauses, not_verified
from jobsvc.client.errors import Corrupt, DownloadError, OutputReplaced
from jobsvc.client.models import Downloaded, File
from jobsvc.client.protocol.api import list_files
from jobsvc.client.transport.driver import Transport, iterate

STREAM_PATH: Final = Path("-")
"""Path of a Downloaded that was written to a stream."""


def stream_job(
    transport: Transport,
    settings: ConnectionSettings,
    job_id: str,
    sink: BinaryIO,
    *,
    output: Collection[str] = (),
    archive: str | None = None,
    options: DownloadOptions,
) -> Downloaded:
    """Write the only file of a job, or of some outputs, or an archive of all of them, to a stream.

    `sink` is buffered: it accepts all bytes of a call. On return all bytes were right. Raises DownloadError
    if there are several files, OutputReplaced if the file was replaced after some bytes were written, Corrupt
    or NotVerified after all were, and what `sink` raises.
    """
    if archive is not None:
        files = JobArchive(transport, settings.retries, job_id, archive, output, verify=options.verify)
        return _stream_archive(transport, settings, files, sink, options)
    operation = list_files(settings.retries, job_id, output=output, want_digests=options.verify)
    listed: list[File] = list(iterate(operation, transport))
    if len(listed) != 1:
        raise DownloadError(
            f"{job_id} has {len(listed)} files, and only one can be written to a stream: "
            "choose an output that is a file, or an archive."
        )
    return stream_file(transport, settings, listed[0], sink, options)


def stream_file(
    transport: Transport, settings: ConnectionSettings, file: File, sink: BinaryIO, options: DownloadOptions
) -> Downloaded:
    """Write one file to a stream. Raises the same as `stream_job`."""
    current = CurrentFiles(transport, settings.retries)
    source = file_source(file)
    stream = OrderedStream(
        transport, settings.retries, source, sink.write, options=options, find_current=current.find_current
    )
    source = stream.run()
    sink.flush()
    if options.verify:
        _verify(current, stream, source)
    return _result(stream, source, stream.sha256 if options.verify else None)


def _verify(current: CurrentFiles, stream: OrderedStream, source: Source) -> None:
    """Compare with the service's digest, and wait until it is known. Raises Corrupt or NotVerified."""
    expected = stream.digest or source.sha256
    pauses = DigestPauses()
    while expected is None:
        (expected,) = current.find([source])
        if expected is None:
            stream.wait(pauses.next([source], kept=False))
    if expected == REPLACED:
        raise not_verified([source], kept=False)
    if expected != stream.sha256:
        raise Corrupt(f"{source.name} of job {source.job_id} is not right: the service has another SHA-256.")


def _stream_archive(
    transport: Transport,
    settings: ConnectionSettings,
    archive: JobArchive,
    sink: BinaryIO,
    options: DownloadOptions,
) -> Downloaded:
    if archive.kind == "zip" and options.verify:
        raise DownloadError(
            "A zip archive can only be verified on disk: write it to a file, choose tar, or do not verify it."
        )
    reader = _TarReader() if options.verify else None

    def write(data: memoryview) -> None:
        sink.write(data)
        if reader is not None:
            reader.write(data)

    stream = OrderedStream(
        transport,
        settings.retries,
        archive.find_current(),
        write,
        options=options,
        find_current=archive.find_current,
    )
    try:
        source = stream.run()
        sink.flush()
    except BaseException:
        if reader is not None:
            with suppress(Corrupt):  # it was not written to its end
                reader.close()
        raise
    if reader is not None:
        members = reader.close()
        try:
            compare(members, archive.files(source, stream.wait))
        except Replaced:
            message = f"{source.name} was replaced before it was verified."
            raise OutputReplaced("output-replaced", 412, message) from None
    return _result(stream, source, None)


class _TarReader:
    """Reads a tar archive in a thread of its own, while it is written."""

    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        self._input = os.fdopen(write_end, "wb", buffering=0)
        self._output = os.fdopen(read_end, "rb")
        self._members: list[Member] = []
        self._error: Exception | None = None
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def write(self, data: memoryview) -> None:
        """Read the next bytes."""
        while data:
            data = data[self._input.write(data) :]

    def close(self) -> list[Member]:
        """Return all members. Raises Corrupt."""
        self._input.close()
        self._thread.join()
        self._output.close()
        if self._error is not None:
            raise self._error
        return self._members

    def _read(self) -> None:
        try:
            self._members = read_tar(self._output, hashed=True, check=lambda: None, seekable=False)
        except Exception as exc:  # noqa: BLE001 - raised by `close`
            self._error = exc
        while self._output.read(1 << 16):
            pass


def _result(stream: OrderedStream, source: Source, sha256: str | None) -> Downloaded:
    stream.report_done()
    return Downloaded(
        STREAM_PATH,
        source.job_id,
        source.output,
        source.size,
        source.etag,
        sha256,
        seconds=monotonic() - stream.started_at,
    )
