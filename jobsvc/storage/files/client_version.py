"""Versions of outputs and logs as clients see them: with the inode number only if the file system keeps it.

FUSE file systems such as sshfs, s3fs or rclone number inodes as they are looked up, CIFS does so with
noserverino, and FAT too: an unchanged file has another number after memory pressure or a remount. There size,
mtime and ctime alone are the version. Blocking: reads the mount table now and then.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import Final

from jobsvc.storage.files.file_version import FileVersion, pack
from jobsvc.storage.filesystem.mounts import keeps_inode_numbers

MAX_AGE_S: Final = 10.0
"""How long a device's answer is used: after an unmount another file system may get its number."""

_by_device: dict[int, tuple[bool, float]] = {}
"""By st_dev whether the numbers are kept, and until when (monotonic seconds) that is used."""


def version_of(status: os.stat_result) -> FileVersion:
    """Return the version of an output or a log from what fstat(2) says."""
    return FileVersion.from_packed(packed_version(status))


def packed_version(status: os.stat_result) -> bytes:
    """Return the same as plain bytes."""
    inode = status.st_ino if _keeps_inodes(status.st_dev) else 0
    return pack(inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _keeps_inodes(device: int) -> bool:
    known = _by_device.get(device)
    if known is None or known[1] < monotonic():
        known = _by_device[device] = keeps_inode_numbers(device), monotonic() + MAX_AGE_S
    return known[0]
