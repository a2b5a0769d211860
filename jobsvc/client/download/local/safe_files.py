"""Open files in a directory that others can write to: no links or pipes that they may have put there."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO, Final

FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ_FLAGS: Final = FLAGS | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe does not wait for its writer."""


def open_regular(path: Path, *, write: bool = False) -> FileIO:
    """Open an existing file unbuffered. Raises OSError, also if it is a link or no regular file."""
    fd = os.open(path, FLAGS | os.O_RDWR if write else _READ_FLAGS)
    try:
        check_regular(fd, path)
        return FileIO(fd, "r+" if write else "r")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: Path, max_size: int) -> bytes:
    """Return the bytes of a file, at most `max_size`. Raises OSError as `open_regular` does."""
    with BufferedReader(open_regular(path)) as file:
        return file.read(max_size)


def check_regular(fd: int, path: Path) -> None:
    """Raise OSError if an open file is no regular one, or if its path is a link (without O_NOFOLLOW)."""
    if not stat.S_ISREG(os.fstat(fd).st_mode) or path.is_symlink():
        raise OSError(errno.EINVAL, "it is not a regular file")


def create_new(path: Path) -> BinaryIO:
    """Create a file for writing, in place of one that exists; a link is not followed. Raises OSError."""
    with suppress(FileNotFoundError):
        path.unlink()
    return open(os.open(path, FLAGS | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")  # noqa: PTH123
