"""A zip archive of a job's files, stored uncompressed, whose length is known before the files are read. Pure.

The records need the CRC-32 of each file. Streaming readers such as Java's accept it in front of the content
only, so an unknown one is computed by reading the file before it is sent, up to 64 MiB. That of a larger file
follows its content, in a descriptor, for which there is room in each archive: if the CRC-32 is known, as many
bytes are padding in the header. So the length is always the same. An archive with ranges needs every CRC-32.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterator
from functools import cached_property
from hashlib import blake2b
from typing import Final, NamedTuple

from jobsvc.storage.archive.crc32 import Crc32Table
from jobsvc.storage.archive.file_list import FileList, OutputFiles
from jobsvc.storage.archive.layout import CrcNeeded, FileRange, Piece, cut
from jobsvc.storage.archive.zip_records import (
    Member,
    central_header,
    central_length,
    descriptor,
    descriptor_length,
    end_records,
    local_header,
    local_length,
)

ZIP: Final = "zip"
MAX_READ_FIRST_BYTES: Final = 64 << 20
"""Largest file that is read before it is sent, for its CRC-32. It is in the page cache then."""
_FILES_PER_YIELD: Final = 64
_SECOND_NS: Final = 1_000_000_000
_UNKNOWN: Final = -1


class ZipLayout:
    """The archive of the files in a FileList."""

    def __init__(self, files: FileList, table: Crc32Table, offsets: _Offsets) -> None:
        """Call `zip_layout` instead."""
        self.files = files
        self._table = table
        self._starts, self._central_starts, self._crcs, large, self._with_descriptor = offsets
        self.etag = f'"{files.version_id(_kind(offsets.with_descriptor))}"'
        """Strong entity tag; it depends on the files, and on which of them have a descriptor."""
        self.url_version = files.version_id(f"{ZIP}-url") if large else self.etag.strip('"')
        """Version for URLs: the tag of an archive with large files changes once their CRC-32 are known."""
        self.has_ranges = _UNKNOWN not in self._crcs
        """Whether every CRC-32 is known in advance, so that any range can be produced."""

    @property
    def length(self) -> int:
        """Length of the archive, in bytes."""
        return self._starts[-1] + self._central_starts[-1] + len(self._end)

    def set_crc(self, file: int, crc: int) -> None:
        """Set the CRC-32 of a file, which was read and found unchanged; remember it for other archives."""
        self._crcs[file] = crc
        self._table.put(self.files[file].version, crc)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what the archive contains from offset `start` to before `stop`; no piece is empty.

        If a CrcNeeded is yielded, `set_crc` has to be called before the next piece is requested.
        """
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self.files) and self._starts[index] < stop:
            yield from self._local(index, start, stop)
            index += 1
        directory_at = self._starts[-1]
        index = max(bisect_right(self._central_starts, start - directory_at) - 1, 0)
        while index < len(self.files) and (at := directory_at + self._central_starts[index]) < stop:
            record = central_header(self._member(index), self._crc(index), self._starts[index])
            yield from cut(record, at, start, stop)
            index += 1
        yield from cut(self._end, directory_at + self._central_starts[-1], start, stop)

    def _local(self, index: int, start: int, stop: int) -> Iterator[Piece]:
        """Yield header, content and descriptor of a file, as far as they are in the range."""
        member, at = self._member(index), self._starts[index]
        end_at = self._starts[index + 1]
        content_at = end_at - member.size - (descriptor_length(member) if member.has_descriptor else 0)
        if start < content_at:
            if self._crcs[index] == _UNKNOWN and not member.has_descriptor:
                yield CrcNeeded(index)
            yield from cut(local_header(member, self._crcs[index]), at, start, stop)
        yield from cut(FileRange(index, 0, member.size, member.has_descriptor), content_at, start, stop)
        if member.has_descriptor and stop > (at := content_at + member.size):
            yield from cut(descriptor(member, self._crc(index)), at, start, stop)

    def _crc(self, index: int) -> int:
        crc = self._crcs[index]
        if crc == _UNKNOWN:
            raise LookupError(f"the CRC-32 of file {index} is unknown")
        return crc

    def _member(self, index: int) -> Member:
        part, at = self.files.locate(index)
        return _member(part, at, has_descriptor=index in self._with_descriptor)

    @cached_property
    def _end(self) -> bytes:
        return end_records(len(self.files), self._starts[-1], self._central_starts[-1])


class _Offsets(NamedTuple):
    """Where the records of the files are."""

    starts: array[int]
    """Offset of each file's local header, and of the directory at the end."""
    central_starts: array[int]
    """Offset in the directory of each file's record, and its length."""
    crcs: array[int]
    """The CRC-32 of each file; -1 for an unknown one."""
    large: set[int]
    """The files that are not read before they are sent."""
    with_descriptor: set[int]
    """Those of the large files whose CRC-32 is not known in advance."""


def zip_layout(files: FileList, table: Crc32Table) -> Generator[None, None, ZipLayout]:
    """Compute the offsets of all files, in steps (see `stepped_work.py`): 4 µs for each."""
    offsets = _Offsets(array("Q", [0]), array("Q", [0]), array("q"), set(), set())
    for index in range(len(files)):
        if index % _FILES_PER_YIELD == 0:
            yield
        _add(offsets, *files.locate(index), table)
    return ZipLayout(files, table, offsets)


def _add(offsets: _Offsets, part: OutputFiles, at: int, table: Crc32Table) -> None:
    """Add the next file: the one at this index of its output."""
    member = _member(part, at, has_descriptor=False)
    crc = table.get(part.version(at)) if member.size else 0
    if member.reserves_descriptor:
        offsets.large.add(len(offsets.crcs))
        if crc is None:
            offsets.with_descriptor.add(len(offsets.crcs))
    offsets.crcs.append(_UNKNOWN if crc is None else crc)
    start = offsets.starts[-1]
    offsets.central_starts.append(offsets.central_starts[-1] + central_length(member, start))
    offsets.starts.append(start + local_length(member) + member.size)


def _member(part: OutputFiles, at: int, *, has_descriptor: bool) -> Member:
    _, size, mtime_ns, _ = part.version(at).parts()
    return Member(
        part.archive_path(at), size, mtime_ns // _SECOND_NS, size > MAX_READ_FIRST_BYTES, has_descriptor
    )


def _kind(with_descriptor: set[int]) -> str:
    """Return the kind of an archive for its version id."""
    if not with_descriptor:
        return ZIP
    return f"{ZIP}-{blake2b(array('I', sorted(with_descriptor)), digest_size=16).hexdigest()}"
