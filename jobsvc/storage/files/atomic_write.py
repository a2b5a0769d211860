"""Write files atomically: write a temporary file in the same directory, fsync it, rename it over the target.

Readers see the complete old or the complete new file, also after a crash. A temporary file left by a crash
has the reserved prefix.
"""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from jobsvc.storage.layout import TEMP_PREFIX

_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})
"""Errors of file systems that cannot fsync a directory (CIFS, some FUSE); the file is written anyway."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644, group: int | None = None) -> None:
    """Replace the file at `path`, in an existing directory, with `data`.

    The umask does not apply to `mode`. `group` is the file's group. Raises OSError if writing fails; the old
    file is then kept. If only the last step fails, the fsync of the directory, OSError is raised but the new
    file is in place.
    """
    descriptor, name = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=path.parent)
    temp = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            chown_to_folder_owner(descriptor, path.parent)
            if group is not None:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temp.replace(path)
    except BaseException:
        with suppress(OSError):
            temp.unlink()
        raise
    _sync(path.parent)


def chown_to_folder_owner(descriptor: int, folder: Path) -> None:
    """Give the file its directory's owner, if permitted: the service must be able to read root's files."""
    with suppress(PermissionError):
        os.fchown(descriptor, folder.stat().st_uid, -1)


def _sync(folder: Path) -> None:
    """Sync the directory, so that the rename survives a power failure (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as fault:
        if fault.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
