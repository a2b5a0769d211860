"""Make the versions of outputs and logs that clients see; without the inode number if it is not stable.

FUSE file systems such as sshfs, s3fs or rclone, CIFS with noserverino, and FAT number inodes at lookup: an
unchanged file gets another number after memory pressure or a remount. On these the version consists of size,
mtime and ctime only. Blocking: reads the mount table at most once in 10 s per device.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import Final

from jobsvc.storage.files.file_version import FileVersion, pack
from jobsvc.storage.filesystem.mounts import keeps_inode_numbers

MAX_AGE_S: Final = 10.0
"""Seconds for which the result for a device is cached: its number may be reused after an unmount."""

_by_device: dict[int, tuple[bool, float]] = {}
"""By st_dev: whether inode numbers are stable, and when this entry expires (monotonic seconds)."""


def version_of(status: os.stat_result) -> FileVersion:
    """Return the version of an output or a log from its fstat(2) result."""
    return FileVersion.from_packed(packed_version(status))


def packed_version(status: os.stat_result) -> bytes:
    """Return the packed version of an output or a log from its fstat(2) result."""
    inode = status.st_ino if _keeps_inodes(status.st_dev) else 0
    return pack(inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _keeps_inodes(device: int) -> bool:
    known = _by_device.get(device)
    if known is None or known[1] < monotonic():
        known = _by_device[device] = keeps_inode_numbers(device), monotonic() + MAX_AGE_S
    return known[0]
