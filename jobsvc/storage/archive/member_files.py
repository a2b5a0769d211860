"""Open the files of a FileList again, one after the other, while an archive of them is sent. Blocking.

One directory and one file are open at a time. A file that is no longer the listed version is not returned.
"""

from __future__ import annotations

import os
from contextlib import suppress

from jobsvc.domain.outputs import OutputKind
from jobsvc.storage.archive.file_list import FileList, OutputFiles
from jobsvc.storage.archive.output_source import OutputSource
from jobsvc.storage.files.safe_open import (
    OpenFile,
    PathNotFound,
    describe_open_file,
    open_directory,
    open_file,
    retry_stale,
)
from jobsvc.storage.sendfile.file_sender import is_changed


class MemberChanged(Exception):
    """A file is missing, or it is not the version that was listed."""


class MemberFiles:
    """Opens files by their index in a list; used by one thread at a time."""

    def __init__(self, files: FileList, source: OutputSource) -> None:
        self._files = files
        self._source = source
        self._directory: int | None = None
        self._directory_key: tuple[str, str] | None = None
        """Output and path of the open directory."""
        self._file: OpenFile | None = None
        self.index: int | None = None
        """Index of the file that was opened last."""

    def open(self, index: int) -> OpenFile:
        """Return the open file; it is closed when another one is opened.

        Raises MemberChanged, or OSError for a storage fault.
        """
        if self._file is not None and self.index == index:
            return self._file
        self.close_file()
        self.index = index
        self._file = self._open(index)
        return self._file

    def read(self, index: int, target: memoryview, offset: int) -> None:
        """Fill `target` with the bytes of a file from `offset` on.

        Raises the same as `open`; MemberChanged also if the file is shorter.
        """
        file = self.open(index)
        while target:
            count = os.preadv(file.fd, [target], offset)
            if count == 0:
                raise MemberChanged
            target, offset = target[count:], offset + count

    def check(self, index: int) -> None:
        """Raise MemberChanged if the file was modified since it was listed; raises OSError."""
        if is_changed(self.open(index)):
            raise MemberChanged

    def close_file(self) -> None:
        """Close the file, if one is open."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def close(self) -> None:
        """Close file and directory."""
        with suppress(OSError):
            self.close_file()
        self._close_directory()

    def _open(self, index: int) -> OpenFile:
        part, at = self._files.locate(index)
        below, _, name = part.path(at).decode().rpartition("/")
        try:
            folder = self._folder(part, below)
            fd, status = retry_stale(lambda: open_file(folder, name))
        except PathNotFound as absent:
            raise MemberChanged from absent
        file = describe_open_file(fd, status, name)
        if file.version != part.version(at):
            file.close()
            raise MemberChanged
        return file

    def _folder(self, part: OutputFiles, below: str) -> int:
        """Return a descriptor of the directory `below` an output's directory."""
        key = part.output.name, below
        if self._directory is None or self._directory_key != key:
            self._close_directory()
            self._directory = self._open_folder(part, below)
            self._directory_key = key
        return self._directory

    def _open_folder(self, part: OutputFiles, below: str) -> int:
        path = part.output.path
        if part.kind is not OutputKind.DIRECTORY:
            return self._source.open_parent(path)
        top = self._source.open_directory(path)
        if not below:
            return top
        try:
            return retry_stale(lambda: open_directory(top, tuple(below.split("/"))))
        finally:
            os.close(top)

    def _close_directory(self) -> None:
        if self._directory is not None:
            directory, self._directory = self._directory, None
            os.close(directory)
