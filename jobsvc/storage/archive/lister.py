"""List the files of a job's outputs, in steps (see `stepped_work.py`). Blocking.

A sequence is the files of one directory whose names match its pattern. A directory is listed with all
directories below it. Only regular files that can be read are listed.
"""

from __future__ import annotations

import heapq
import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Final, Generic, TypeAlias, TypeVar

from jobsvc.domain.errors import TooManyFiles
from jobsvc.domain.outputs import MAX_FILES, FramePattern, Output, OutputKind, sequence_pattern
from jobsvc.storage.archive.file_list import FileList, OutputFiles, OutputFilesBuilder
from jobsvc.storage.archive.output_folder import NotAFile, OutputFolder, is_usable
from jobsvc.storage.archive.output_source import OutputSource
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.layout import MAX_PATH_DEPTH, MAX_PATH_LENGTH, components

T = TypeVar("T", bound=Any)

NAMES_PER_CHUNK: Final = 2048
"""Names that are sorted at once; it takes a millisecond."""
_NAMES_PER_YIELD: Final = 64

Work: TypeAlias = Generator[None, None, None]
Part: TypeAlias = Generator[None, None, OutputFiles]


def list_files(outputs: Sequence[Output], source: OutputSource) -> Generator[None, None, FileList]:
    """List the files of all outputs.

    An output that does not exist has no files. Raises TooManyFiles, or OSError for a storage fault.
    """
    lister = _Lister(source, outputs)
    parts: list[OutputFiles] = []
    for output in outputs:
        part = yield from lister.list_output(output)
        parts.append(part)
    return FileList(parts)


class _Sequence:
    """One sequence, and the files of it that are found in a listing of its directory."""

    def __init__(self, output: Output, pattern: FramePattern, names: tuple[str, ...]) -> None:
        self.output = output
        self.pattern = pattern
        self.folder = output.path.startswith("/"), names[:-1]
        """The directory: whether its path is absolute, and its components."""
        self.name = names[-1]
        self.builder = OutputFilesBuilder(output, OutputKind.SEQUENCE)
        self.frames = _SortedChunks[tuple[int, str]]()
        self.count = 0
        """Number of files in `frames`."""
        self.is_file = False
        """Whether a file has the pattern as its name."""

    @classmethod
    def of(cls, output: Output) -> _Sequence | None:
        """Return the sequence that an output is; None if its name has no placeholder."""
        names = components(output.path)
        pattern = None if names is None or output.path.endswith("/") else sequence_pattern(names[-1])
        return None if names is None or pattern is None else cls(output, pattern, names)

    def frame_of(self, name: str) -> int | None:
        """Return the frame number in a file name; None if it is none of this sequence."""
        return self.pattern.frame_of(name, self.output.frames)


class _Lister:
    """Counts the files of all outputs together."""

    def __init__(self, source: OutputSource, outputs: Sequence[Output]) -> None:
        self._source = source
        self._files = 0
        self._directories = 0
        sequences = [_Sequence.of(output) for output in outputs]
        self._sequences = {each.output.name: each for each in sequences if each is not None}
        """All sequences by name."""
        self._scanned: set[tuple[bool, tuple[str, ...]]] = set()
        """The directories of sequences that were listed."""

    def list_output(self, output: Output) -> Part:
        """List one output: a sequence if its name has a placeholder, else a file, or a directory."""
        names = components(output.path)
        if names is None:
            return OutputFilesBuilder(output, OutputKind.FILE).finish()
        sequence = self._sequences.get(output.name)
        if sequence is not None:
            return (yield from self._list_sequence(sequence))
        file = None if output.path.endswith("/") else self._list_file(output, names[-1])
        yield
        return (yield from self._list_directory(output, len(names))) if file is None else file

    def _list_file(self, output: Output, name: str) -> OutputFiles | None:
        """List the file at the output's path; return None if there is none."""
        builder = OutputFilesBuilder(output, OutputKind.FILE)
        try:
            file = self._source.open_file(output.path)
        except PathNotFound:
            return None
        file.close()
        if is_usable(name):
            self._count_file()
            builder.add(name, file.version)
        else:
            builder.unusable += 1
        return builder.finish()

    def _list_sequence(self, sequence: _Sequence) -> Part:
        """List the files that match a pattern; if a file has the pattern as its name, only this one."""
        if sequence.folder not in self._scanned:
            self._scanned.add(sequence.folder)
            yield from self._scan(
                [each for each in self._sequences.values() if each.folder == sequence.folder]
            )
        builder = sequence.builder
        if sequence.is_file:
            file = self._list_file(sequence.output, sequence.name)
            return builder.finish() if file is None else file
        folder = self._open(builder, self._source.open_parent) if sequence.count else None
        if folder is not None:
            with closing(folder):
                for frame, found in sequence.frames.merged():
                    self._add(builder, folder, found, found, frame)
                    yield
        return builder.finish()

    def _scan(self, sequences: Sequence[_Sequence]) -> Work:
        """Find the files of all sequences in one directory: their number times its entries is too many."""
        try:
            folder = OutputFolder(self._source.open_parent(sequences[0].output.path))
        except PathNotFound:
            return
        except PermissionError:
            for sequence in sequences:
                sequence.builder.skipped += 1
            return
        by_prefix = defaultdict(list)
        with closing(folder):
            for sequence in sequences:
                sequence.is_file = folder.has_file(sequence.name)
                if not sequence.is_file:
                    by_prefix[sequence.pattern.prefix].append(sequence)
                yield
            lengths = sorted({len(prefix) for prefix in by_prefix})
            for count, entry in enumerate(folder.entries()):
                for length in lengths:
                    for sequence in by_prefix.get(entry.name[:length], ()):
                        self._add_frame(sequence, entry)
                if count % _NAMES_PER_YIELD == 0:
                    yield

    def _add_frame(self, sequence: _Sequence, entry: os.DirEntry[str]) -> None:
        """Add an entry to a sequence if it is one of its files."""
        frame = sequence.frame_of(entry.name)
        if frame is not None and self._is_usable_file(sequence.builder, entry):
            sequence.frames.append((frame, entry.name))
            sequence.count += 1

    def _list_directory(self, output: Output, depth: int) -> Part:
        builder = OutputFilesBuilder(output, OutputKind.DIRECTORY)
        folder = self._open(builder, self._source.open_directory)
        if folder is not None:
            with closing(folder):
                yield from self._walk(builder, folder, "", MAX_PATH_DEPTH - depth)
        return builder.finish()

    def _walk(self, builder: OutputFilesBuilder, folder: OutputFolder, prefix: str, depth: int) -> Work:
        """Add the files below a directory in order; their paths have at most `depth` components from here."""
        names = _SortedChunks[str]()
        for count, entry in enumerate(folder.entries()):
            if entry.is_dir(follow_symlinks=False):
                if self._is_usable_directory(builder, entry, prefix, depth):
                    # With the slash, a directory sorts as the paths of the files in it do.
                    names.append(entry.name + "/")
            elif self._is_usable_file(builder, entry):
                names.append(entry.name)
            if count % _NAMES_PER_YIELD == 0:
                yield
        for name in names.merged():
            if name.endswith("/"):
                yield from self._walk_below(builder, folder, name, prefix, depth - 1)
            else:
                self._add(builder, folder, name, prefix + name)
            yield

    def _walk_below(
        self, builder: OutputFilesBuilder, parent: OutputFolder, name: str, prefix: str, depth: int
    ) -> Work:
        try:
            folder = parent.open_directory(name[:-1])
        except PathNotFound:
            return
        except PermissionError:
            builder.skipped += 1
            return
        with closing(folder):
            yield from self._walk(builder, folder, prefix + name, depth)

    def _open(self, builder: OutputFilesBuilder, opener: Callable[[str], int]) -> OutputFolder | None:
        """Open the directory of an output; return None if there is none, or if it cannot be read."""
        try:
            return OutputFolder(opener(builder.output.path))
        except PathNotFound:
            return None
        except PermissionError:
            builder.skipped += 1
            return None

    def _add(
        self,
        builder: OutputFilesBuilder,
        folder: OutputFolder,
        name: str,
        path: str,
        frame: int | None = None,
    ) -> None:
        """Add a file of a directory, unless it is removed meanwhile."""
        if len(builder.output.path) + len(path) >= MAX_PATH_LENGTH:
            builder.unusable += 1
            return
        try:
            version = folder.version_of(name)
        except NotAFile:
            builder.skipped += 1
        else:
            if version is not None:
                builder.add(path, version, frame)

    def _is_usable_file(self, builder: OutputFilesBuilder, entry: os.DirEntry[str]) -> bool:
        """Return whether the entry can be listed; count it in any case."""
        if not entry.is_file(follow_symlinks=False):
            builder.skipped += 1
            return False
        if not is_usable(entry.name):
            builder.unusable += 1
            return False
        self._count_file()
        return True

    def _is_usable_directory(
        self, builder: OutputFilesBuilder, entry: os.DirEntry[str], prefix: str, depth: int
    ) -> bool:
        if depth <= 1 or not is_usable(entry.name):
            builder.unusable += 1
            return False
        if self._source.is_closed(f"{builder.output.path}/{prefix}{entry.name}"):
            builder.skipped += 1
            return False
        self._directories += 1
        if self._directories > MAX_FILES:
            raise TooManyFiles(MAX_FILES)
        return True

    def _count_file(self) -> None:
        self._files += 1
        if self._files > MAX_FILES:
            raise TooManyFiles(MAX_FILES)


class _SortedChunks(Generic[T]):
    """Sorts many items, a chunk at a time: to sort all at once would hold the GIL for 0.1 s."""

    def __init__(self) -> None:
        self._chunks: list[list[T]] = []
        self._last: list[T] = []

    def append(self, item: T) -> None:
        """Add an item."""
        self._last.append(item)
        if len(self._last) == NAMES_PER_CHUNK:
            self._end_chunk()

    def merged(self) -> Iterator[T]:
        """Yield all items in order; no more can be added."""
        self._end_chunk()
        return heapq.merge(*self._chunks)

    def _end_chunk(self) -> None:
        self._last.sort()
        self._chunks.append(self._last)
        self._last = []
