"""Send byte ranges of an archive to a socket, in slices or chunks; blocking, runs in storage threads.

Headers, padding and small files are collected in a buffer and written together. Large files are sent with
sendfile(2), by the rule of `sendfile/file_sender.py`: the end of each, as much as the socket buffers can
hold, is copied, and the file is checked for changes before its last piece. If a file is missing or not the
listed version, sending stops there: a client never gets a complete archive with wrong bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from time import monotonic
from typing import Final

from jobsvc.storage.archive.crc32 import RunningCrc
from jobsvc.storage.archive.layout import ArchiveLayout, CrcNeeded, FileRange, Piece
from jobsvc.storage.archive.member_files import MemberChanged, MemberFiles
from jobsvc.storage.archive.output_source import OutputSource
from jobsvc.storage.sendfile.socket_sender import SendResult, SocketSender, StopReason

BUFFER_BYTES: Final = 256 * 1024
"""Bytes collected for one write."""
MIN_READ_BYTES: Final = 64 * 1024
"""Bytes of the buffer that have to be free for reading a file only to compute its CRC-32."""
COLLECT_S: Final = 0.003
"""Seconds of collecting, so that a chunk of many small files does not hold up the other downloads."""


class _PeerUnread(Exception):
    """The client has to read more before the last piece of a file."""


class ArchiveSender(SocketSender):
    """One archive and one socket. Offsets are those in the archive. Only one thread at a time may send."""

    def __init__(
        self, layout: ArchiveLayout, source: OutputSource, socket_fd: int, ranges: Sequence[tuple[int, int]]
    ) -> None:
        """Prepare to send these ranges of the archive, each from a start to before a stop; opens no file yet.

        Raises OSError if no descriptor is available.
        """
        super().__init__(socket_fd, sum(stop - start for start, stop in ranges))
        self._layout = layout
        self._ranges = ranges
        self._members = MemberFiles(layout.files, source)
        self._buffer = memoryview(bytearray(min(BUFFER_BYTES, self._expected)))
        self._unsent = self._buffer[:0]
        """Collected bytes that are not sent yet."""
        self._unsent_at = -1
        """Offset in the archive of the first of them."""
        self._crc = RunningCrc()
        self._file_in_pages: int | None = None
        """The file of which bytes were sent by sendfile last."""

    @property
    def file_name(self) -> str | None:
        """The path in the archive of the file that is being read, or was last; None before the first."""
        index = self._members.index
        if index is None:
            return None
        part, at = self._layout.files.locate(index)
        return part.archive_path(at).decode()

    @cached_property
    def _copied_end(self) -> int:
        """Number of bytes at the end of each file that are copied."""
        return self.queues.max_buffered() + BUFFER_BYTES

    def _send_some(self, at: int, stop: int) -> SendResult:
        """Send with sendfile, or what is collected; collect if nothing is."""
        try:
            if at != self._unsent_at or not self._unsent:
                result = self._sendfile_large(at, stop)
                if result is not None:
                    return result
                self._unsent_at, self._unsent = at, self._buffer[:0]
                self._unsent = self._buffer[: self._collect(at, stop)]
        except _PeerUnread:
            return SendResult(0, StopReason.PEER_UNREAD)
        except MemberChanged:
            return SendResult(0, StopReason.FILE_CHANGED)
        except OSError as error:
            return SendResult(0, StopReason.STORAGE_ERROR, error)
        result = self._write(self._unsent[: stop - at])
        self._unsent_at += result.sent
        self._unsent = self._unsent[result.sent :]
        return result

    def _sendfile_large(self, at: int, stop: int) -> SendResult | None:
        """Send a part of a large file with sendfile; None if the bytes at this offset have to be copied."""
        piece = next(self._layout.pieces(at, self._range_stop(at)))
        if not isinstance(piece, FileRange) or piece.needs_crc:
            return None
        count = min(self._chunk, stop - at, piece.stop - piece.start - self._copied_end)
        if count <= 0:
            return None
        result = self._sendfile(self._members.open(piece.file).fd, piece.start, count)
        if result is not None:
            self._file_in_pages = piece.file
        return result

    def _collect(self, at: int, stop: int) -> int:
        """Fill the buffer with the bytes from offset `at`, at most to before `stop`; return their number.

        An error is raised only if nothing was collected: else it comes again at the next call. Nothing is
        collected either if only a CRC-32 was computed for a while.
        """
        end_at, filled, range_stop = monotonic() + COLLECT_S, 0, self._range_stop(at)
        for piece in self._layout.pieces(at, min(stop, at + len(self._buffer))):
            try:
                added = self._add(piece, filled, range_stop - at - filled, end_at)
            except (MemberChanged, _PeerUnread, OSError):
                if not filled:
                    raise
                break
            if added is None:
                break
            filled += added
            if monotonic() > end_at:
                break
        return filled

    def _add(self, piece: Piece, filled: int, remaining: int, end_at: float) -> int | None:
        """Add a piece to the buffer and return its length; None if it cannot be added now.

        `remaining` bytes are left in the range.
        """
        if isinstance(piece, bytes):
            self._buffer[filled : filled + len(piece)] = piece
            return len(piece)
        if isinstance(piece, CrcNeeded):
            free = self._buffer[filled:]
            is_known = not (filled and len(free) < MIN_READ_BYTES) and self._read_first(
                piece.file, free, end_at
            )
            return 0 if is_known else None
        if filled and self._is_large(piece, remaining):
            return None
        length = piece.stop - piece.start
        self._read(piece, self._buffer[filled : filled + length], is_end=length == remaining)
        return length

    def _is_large(self, piece: FileRange, remaining: int) -> bool:
        """Return whether sendfile can send the file from here."""
        if remaining <= self._copied_end or piece.needs_crc:
            return False
        part, at = self._layout.files.locate(piece.file)
        return part.version(at).size - piece.start > self._copied_end

    def _read(self, piece: FileRange, target: memoryview, *, is_end: bool) -> None:
        """Read a part of a file, and check the file at its end, or at that of the range."""
        at_end = is_end or piece.stop == self._members.open(piece.file).version.size
        if at_end and self._file_in_pages == piece.file and self.has_unread_pages():
            raise _PeerUnread
        self._members.read(piece.file, target, piece.start)
        if piece.needs_crc:
            self._crc.add(piece.file, piece.start, target)
        if at_end:
            self._members.check(piece.file)
            self._members.close_file()
            if piece.needs_crc:
                self._layout.set_crc(piece.file, self._crc.value)

    def _read_first(self, file: int, buffer: memoryview, end_at: float) -> bool:
        """Read a file to compute its CRC-32, until `end_at`; return whether it is known now."""
        started_at, size = monotonic(), self._members.open(file).version.size
        while (offset := self._crc.offset(file)) < size:
            part = buffer[: size - offset]
            self._members.read(file, part, offset)
            self._crc.add(file, offset, part)
            if monotonic() > end_at:
                break
        # Nothing is sent, so only this call can tell whether storage is fast.
        self._adjust_chunk_size(monotonic() - started_at)
        if self._crc.offset(file) < size:
            return False
        self._members.check(file)
        self._layout.set_crc(file, self._crc.value)
        return True

    def _range_stop(self, at: int) -> int:
        """Return the end of the range that contains this offset; of several ranges, the nearest end."""
        return min(stop for start, stop in self._ranges if start <= at < stop)

    def _close_files(self) -> None:
        self._members.close()
