"""Send byte ranges of one open file to one socket, in slices or chunks; blocking, runs in storage threads.

sendfile(2) queues references to page-cache pages, so bytes overwritten in place afterwards can still reach
the client. Therefore two parts are copied with read() and write(): the last part of the whole, as much as the
socket buffers can hold, and the last piece of each range, before which the file is checked for changes. For a
client on this host the last part is at most 4 MiB, because the kernel reports how much that client has read.
If the file shrank or changed, sending stops before the last byte: a client never gets a complete response
with wrong bytes.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Final

from jobsvc.storage.files.pread import fingerprint, read_fully
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.sendfile.socket_sender import SendResult, SocketSender, StopReason

COPY_BYTES: Final = 128 * 1024
"""Bytes copied at once. Before the last piece is sent, the file is checked for changes."""


class FileSender(SocketSender):
    """One file and one socket, each with its own descriptor. Only one thread at a time may send."""

    def __init__(self, file: OpenFile, socket_fd: int, expected: int) -> None:
        """Take ownership of `file` and duplicate the socket's descriptor; `expected` bytes will be sent.

        Raises OSError if no descriptor is available; `file` then still belongs to the caller.
        """
        super().__init__(socket_fd, expected)
        self._file = file

    @property
    def file_name(self) -> str:
        """The name of the file."""
        return self._file.name

    @cached_property
    def _sendfile_end(self) -> int:
        """Number of bytes to send with sendfile; the rest fits in the socket buffers and is copied."""
        return self._expected - self.queues.max_buffered()

    def _send_some(self, at: int, stop: int) -> SendResult:
        """Send some bytes with sendfile if enough bytes follow (see `_sendfile_end`), else copy them."""
        count = min(self._chunk, stop - at - COPY_BYTES, self._sendfile_end - self.sent)
        if count > 0:
            result = self._sendfile(self._file.fd, at, count)
            if result is not None:
                return result
        return self._copy_chunk(at, min(at + COPY_BYTES, stop), last=at + COPY_BYTES >= stop)

    def _copy_chunk(self, at: int, stop: int, *, last: bool) -> SendResult:
        if self.sent + stop - at >= self._expected and self.has_unread_pages():
            return SendResult(0, StopReason.PEER_UNREAD)
        try:
            piece = read_fully(self._file.fd, at, stop - at)
            if len(piece) < stop - at or (last and is_changed(self._file)):
                return SendResult(0, StopReason.FILE_CHANGED)
        except OSError as error:
            return SendResult(0, StopReason.STORAGE_ERROR, error)
        return self._write(piece)

    def _close_files(self) -> None:
        self._file.close()


def is_changed(file: OpenFile) -> bool:
    """Return whether the file was modified since it was opened; raises OSError on storage faults.

    A different size or mtime is a change. A different ctime is one too, unless the link count dropped (the
    file was renamed over or unlinked): tools that restore the mtime after writing leave no other trace. A new
    owner, mode or link is therefore reported as a change. For a log (`fingerprint` set), growth is not a
    change.
    """
    status = os.fstat(file.fd)
    _, size, mtime_ns, ctime_ns = file.version.parts()
    if file.fingerprint is not None:
        return status.st_size < size or fingerprint(file.fd, size) != file.fingerprint
    if status.st_size != size or status.st_mtime_ns != mtime_ns:
        return True
    return status.st_ctime_ns != ctime_ns and status.st_nlink >= file.link_count
