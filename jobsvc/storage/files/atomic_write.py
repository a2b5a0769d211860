"""The one ritual by which we write a file: beside it, synced, renamed over it; readers see old or new, whole.

After a crash the file is whole, old or new; what may be left over beside it has the reserved prefix.
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
"""What file systems say that can't sync a folder (CIFS, some of FUSE): the file is there all the same."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file at `path`, in a folder that exists, with `data`; OSError leaves the old one in place.

    `mode` is taken as it is, whatever the umask. Where only the last step fails, the sync of the folder, the
    new file is there all the same.
    """
    descriptor, name = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=path.parent)
    temp = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            chown_to_folder_owner(descriptor, path.parent)
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
    """Let root's files belong to whom the folder belongs: the service, which may not be root, reads them."""
    with suppress(PermissionError):
        os.fchown(descriptor, folder.stat().st_uid, -1)


def _sync(folder: Path) -> None:
    """Make the rename last through a power cut (open(2) on a directory, fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as fault:
        if fault.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
