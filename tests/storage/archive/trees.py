"""Outputs on a real file system, listed and archived in tests."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from jobsvc.domain.outputs import Frames, Output, OutputKind
from jobsvc.storage.archive.file_list import FileList, OutputFilesBuilder
from jobsvc.storage.archive.layout import ArchiveLayout, CrcNeeded, FileRange, Piece
from jobsvc.storage.archive.lister import list_files
from jobsvc.storage.archive.stepped_work import SteppedWork
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile, PathNotFound, describe_open_file, open_regular

T = TypeVar("T")


class FolderSource:
    """Opens the outputs of a job whose directory is `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open_file(self, path: str) -> OpenFile:
        folder = os.open(self.root, os.O_RDONLY)
        try:
            return describe_open_file(*open_regular(folder, tuple(path.split("/"))))
        finally:
            os.close(folder)

    def open_directory(self, path: str) -> int:
        return self._open(self.root / path)

    def open_parent(self, path: str) -> int:
        return self._open((self.root / path).parent)

    def is_closed(self, path: str) -> bool:
        return path.endswith("/closed")

    @staticmethod
    def _open(path: Path) -> int:
        try:
            return os.open(path, os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as absent:
            raise PathNotFound from absent


def run(work: Generator[None, None, T]) -> T:
    """Run work to its end."""
    steps = SteppedWork(work)
    while not steps.step():
        pass
    return steps.result


def listed(root: Path, *outputs: Output) -> FileList:
    return run(list_files(outputs, FolderSource(root)))


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def file_list(
    files: Sequence[tuple[str, int, int]], output: str = "out", kind: OutputKind = OutputKind.DIRECTORY
) -> FileList:
    """Return a list of files that do not exist: of each the path, the size and the mtime in seconds."""
    builder = OutputFilesBuilder(Output(output, output, frames=Frames(1, 1)), kind)
    for number, (path, size, mtime) in enumerate(files):
        builder.add(path, FileVersion(number + 1, size, mtime * 1_000_000_000, 0))
    return FileList([builder.finish()])


def bytes_of(
    layout: ArchiveLayout, contents: Sequence[bytes], start: int = 0, stop: int | None = None
) -> bytes:
    """Return a range of an archive of files with these contents."""
    parts = []
    for piece in layout.pieces(start, layout.length if stop is None else stop):
        if isinstance(piece, bytes):
            assert piece
            parts.append(piece)
        elif isinstance(piece, FileRange):
            assert piece.start < piece.stop
            parts.append(contents[piece.file][piece.start : piece.stop])
            if piece.needs_crc:
                layout.set_crc(piece.file, crc32(contents[piece.file]))
        else:
            layout.set_crc(piece.file, crc32(contents[piece.file]))
    return b"".join(parts)


def length_of(piece: Piece) -> int:
    """Return the number of bytes of a piece of an archive."""
    if isinstance(piece, CrcNeeded):
        return 0
    return len(piece) if isinstance(piece, bytes) else piece.stop - piece.start
