"""What an archive consists of: bytes that are made up, and ranges of files, each at a known offset. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeAlias

from jobsvc.storage.archive.file_list import FileList


class FileRange(NamedTuple):
    """Consecutive bytes of one file."""

    file: int
    """Index of the file in the FileList."""
    start: int
    stop: int
    """Offsets in the file."""
    needs_crc: bool = False
    """Whether the file's CRC-32 is needed behind these bytes: to be computed as they are sent."""


class CrcNeeded(NamedTuple):
    """No bytes: the CRC-32 of a file is needed here, in front of its content."""

    file: int


Piece: TypeAlias = bytes | FileRange | CrcNeeded


class ArchiveLayout(Protocol):
    """One archive of the files of a FileList. Any range of it can be produced without what is before it."""

    @property
    def files(self) -> FileList:
        """The files that the archive contains, in this order."""

    @property
    def length(self) -> int:
        """Length of the whole archive, in bytes."""

    @property
    def etag(self) -> str:
        """Strong entity tag: archives with equal tags are equal in every byte."""

    @property
    def url_version(self) -> str:
        """Version for URLs: that of the entity tag, unless this can change while the files do not."""

    @property
    def has_ranges(self) -> bool:
        """Whether any range can be produced without reading the files before it."""

    def set_crc(self, file: int, crc: int) -> None:
        """Set the CRC-32 of a file, if `pieces` asked for it."""

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what the archive contains from offset `start` to before `stop`; no piece is empty."""


def cut(piece: bytes | FileRange, at: int, start: int, stop: int) -> Iterator[Piece]:
    """Yield the part of a piece, which begins at offset `at`, between two offsets; nothing if it is empty.

    A FileRange has to begin at the start of its file.
    """
    first = max(start - at, 0)
    if isinstance(piece, bytes):
        part = piece[first : max(stop - at, 0)]
        if part:
            yield part
    elif first < (end := min(piece.stop, stop - at)):
        yield piece._replace(start=first, stop=end)
