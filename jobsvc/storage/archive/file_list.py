"""The files of a job's outputs, packed into arrays: 100,000 files need about 10 MB. Pure.

Files are sorted by output, in the order of the record, then by frame and by the bytes of their path. A path
is relative to the output's directory; that of a single file is its name.
"""

from __future__ import annotations

from array import array
from base64 import urlsafe_b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import accumulate
from struct import Struct
from typing import Final, NamedTuple

from jobsvc.domain.outputs import Frames, Output, OutputKind, sequence_pattern
from jobsvc.storage.files.file_version import PACKED_SIZE, FileVersion

_SIZES: Final = Struct("<8xQ24x")
"""Extracts the size from a packed FileVersion."""
_ID_LENGTH: Final = 22
"""Characters of an archive's version id: 16 bytes in base64 without padding, as for a single file."""


class ListedFile(NamedTuple):
    """One file, as it was found when the outputs were listed."""

    output: Output
    path: str
    """Relative to the output's directory; of a single file, its name."""
    frame: int | None
    """The frame number, in a sequence."""
    version: FileVersion


@dataclass(frozen=True, slots=True, eq=False)
class OutputFiles:
    """The files of one output, or consecutive ones of them. The arrays are shared by all selections."""

    output: Output
    kind: OutputKind
    names: bytes
    """The paths in UTF-8, each followed by a NUL byte."""
    ends: array[int]
    """Offset in `names` after each path and its NUL byte."""
    frames: array[int]
    """The frame number of each file; empty if this is no sequence."""
    versions: bytes
    """The packed FileVersion of each file."""
    start: int
    stop: int
    """Index of the first file, and the index after the last one."""
    total_size: int | None = None
    """Bytes of all these files; None if it was not added up, after a selection of frames."""
    expected: Frames | None = None
    """The frames that a sequence should have: those of the record, or from the first to the last found."""
    skipped: int = 0
    """Number of entries that are no regular file (links, FIFOs, sockets, devices) or cannot be read."""
    unusable: int = 0
    """Number of names that are left out: not UTF-8, too long, or with a backslash, a separator on Windows."""

    def __len__(self) -> int:
        return self.stop - self.start

    def path(self, index: int) -> bytes:
        """Return the path of the file at `index`, counted from 0 whatever is selected."""
        return self.names[self.ends[index - 1] if index else 0 : self.ends[index] - 1]

    def archive_path(self, index: int) -> bytes:
        """Return the path of the file at `index` in an archive: the output's name, a slash, and the path.

        It is relative and has no component `..`: neither an output nor a directory entry can have that name.
        """
        return b"%b/%b" % (self.output.name.encode(), self.path(index))

    def version(self, index: int) -> FileVersion:
        """Return the version of the file at `index`."""
        return FileVersion.from_packed(self.versions[index * PACKED_SIZE : (index + 1) * PACKED_SIZE])

    def sizes(self) -> Iterator[int]:
        """Yield the size of each selected file, in bytes."""
        part = memoryview(self.versions)[self.start * PACKED_SIZE : self.stop * PACKED_SIZE]
        return (size for (size,) in _SIZES.iter_unpack(part))

    def missing_frames(self) -> int:
        """Count the expected frames that no file has. Takes time for each file."""
        if self.expected is None:
            return 0
        return self.expected.last - self.expected.first + 1 - len(set(self.frames[self.start : self.stop]))

    def with_frames(self, frames: Frames) -> OutputFiles:
        """Return the files with these frame numbers; none of an output that is no sequence."""
        if self.kind is not OutputKind.SEQUENCE:
            return replace(self, stop=self.start, total_size=0)
        start = bisect_left(self.frames, frames.first, self.start, self.stop)
        stop = bisect_right(self.frames, frames.last, start, self.stop)
        expected = _overlap(self.expected, frames)
        return replace(self, start=start, stop=stop, total_size=None, expected=expected)

    def position_of(self, path: str) -> int:
        """Return the index of the file with this path, or of the one that would follow it."""
        key = self._frame_of(path), path.encode("utf-8", "replace")
        return bisect_left(range(self.stop), key, self.start, self.stop, key=self._key)

    def _key(self, index: int) -> tuple[int, bytes]:
        return self.frames[index] if self.frames else 0, self.path(index)

    def _frame_of(self, path: str) -> int:
        if self.kind is not OutputKind.SEQUENCE:
            return 0
        pattern = sequence_pattern(self.output.path.rpartition("/")[2])
        return (pattern.frame_of(path) if pattern else None) or 0


class OutputFilesBuilder:
    """Collects the files of one output in sorted order."""

    def __init__(self, output: Output, kind: OutputKind) -> None:
        self.output = output
        self.kind = kind
        self.skipped = 0
        self.unusable = 0
        self._names = bytearray()
        self._ends = array("I")
        self._frames = array("q")
        self._versions = bytearray()

    def add(self, path: str, version: bytes, frame: int | None = None) -> None:
        """Append a file with this packed version; it must follow all others in the order of the list."""
        self._names += path.encode()
        self._names.append(0)
        self._ends.append(len(self._names))
        self._versions += version
        if frame is not None:
            self._frames.append(frame)

    def finish(self) -> OutputFiles:
        """Return the files."""
        expected = self.output.frames if self.kind is OutputKind.SEQUENCE else None
        if expected is None and self._frames:
            expected = Frames(self._frames[0], self._frames[-1])
        versions = bytes(self._versions)
        total_size = sum(size for (size,) in _SIZES.iter_unpack(versions))
        return OutputFiles(
            self.output, self.kind, bytes(self._names), self._ends, self._frames, versions,
            0, len(self._ends), total_size, expected, self.skipped, self.unusable,
        )  # fmt: skip


class FileList(Sequence[ListedFile]):
    """The files of some outputs of a job, sorted. Never modified."""

    __slots__ = ("_starts", "outputs")

    def __init__(self, outputs: Iterable[OutputFiles]) -> None:
        """Take the files of each output, in the order of the record."""
        self.outputs = tuple(outputs)
        self._starts = list(accumulate(map(len, self.outputs), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> ListedFile:  # type: ignore[override]
        part, at = self.locate(index)
        frame = part.frames[at] if part.frames else None
        return ListedFile(part.output, part.path(at).decode(), frame, part.version(at))

    @property
    def total_size(self) -> int:
        """Bytes of all files. After a selection of frames it is added up: 10 ms for 100,000 files."""
        return sum(sum(part.sizes()) if part.total_size is None else part.total_size for part in self.outputs)

    def slice(self, start: int, stop: int) -> Iterator[ListedFile]:
        """Yield the files from index `start` to before `stop`, or to the end."""
        return map(self.__getitem__, range(start, min(stop, len(self))))

    def locate(self, index: int) -> tuple[OutputFiles, int]:
        """Return the output that the file at `index` belongs to, and the file's index there.

        Raises IndexError.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._starts, index) - 1
        return self.outputs[part], self.outputs[part].start + index - self._starts[part]

    def find(self, output: str, path: str) -> int | None:
        """Return the index of the file with this path in the output; None if there is none."""
        index = self.index_at(output, path)
        if index is not None and index < len(self):
            found = self[index]
            if found.output.name == output and found.path == path:
                return index
        return None

    def index_at(self, output: str, path: str) -> int | None:
        """Return the index of this file, or of the first one that sorts after it; None if no such output."""
        for start, part in zip(self._starts, self.outputs, strict=False):
            if part.output.name == output:
                return start + part.position_of(path) - part.start
        return None

    def select(self, outputs: Collection[str] | None = None, frames: Frames | None = None) -> FileList:
        """Return the files of the outputs with these names, and of these only the given frames.

        None selects all. A range of frames selects no files of outputs that are no sequences. The result
        shares the memory of this list.
        """
        parts = [part for part in self.outputs if outputs is None or part.output.name in outputs]
        return FileList(parts if frames is None else [part.with_frames(frames) for part in parts])

    def version_id(self, kind: str) -> str:
        """Return the id of an archive with these files, its ETag without quotes: 22 of `[A-Za-z0-9_-]`.

        `kind` is the format of the archive. A different name, size, mtime, ctime or inode of any file gives
        another id. Hashes about 80 bytes for each file, without the GIL.
        """
        digest = blake2b(kind.encode(), digest_size=16)
        for part in self.outputs:
            first, last = (part.ends[at - 1] if at else 0 for at in (part.start, part.stop))
            digest.update(f"\0{part.output.name}\0{len(part)}\0".encode())
            digest.update(memoryview(part.names)[first:last])
            digest.update(memoryview(part.versions)[part.start * PACKED_SIZE : part.stop * PACKED_SIZE])
        return urlsafe_b64encode(digest.digest())[:_ID_LENGTH].decode()


def _overlap(expected: Frames | None, selected: Frames) -> Frames | None:
    if expected is None:
        return None
    first, last = max(expected.first, selected.first), min(expected.last, selected.last)
    return Frames(first, last) if first <= last else None
