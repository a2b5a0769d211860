"""Make the versions of outputs and logs that clients see; without the inode number if it is not stable.

FUSE file systems such as sshfs, s3fs or rclone, CIFS with noserverino, and FAT number inodes at lookup: an
unchanged file gets another number after memory pressure or a remount. On these the version consists of size,
mtime and ctime only. Blocking: reads the mount table at most once in 5 s per device.
"""

from __future__ import annotations

import os

from jobsvc.storage.files.file_version import FileVersion, pack
from jobsvc.storage.filesystem.mounts import keeps_inode_numbers


def client_version(status: os.stat_result) -> FileVersion:
    """Return the version of an output or a log from its fstat(2) result."""
    return FileVersion.from_packed(packed_client_version(status))


def packed_client_version(status: os.stat_result) -> bytes:
    """Return the packed version of an output or a log from its fstat(2) result."""
    inode = status.st_ino if keeps_inode_numbers(status.st_dev) else 0
    return pack(inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
