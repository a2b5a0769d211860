"""Which file system a path lies on, by the kernel's table of mounts, and whether its events tell all."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")

_LOCAL: Final = frozenset({
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "msdos", "nilfs2", "ntfs3",
    "overlay", "ramfs", "reiserfs", "tmpfs", "udf", "vfat", "xfs", "zfs",
})  # fmt: skip
_NUMBERED_ANEW: Final = frozenset({"exfat", "msdos", "vboxsf", "vfat"})
"""File systems that number inodes as they are looked up; so do FUSE in general, and CIFS with noserverino."""
_FUSE_WITH_INODES: Final = frozenset(
    {"fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.mfs"}
)
"""FUSE file systems whose server keeps the numbers."""
_CIFS: Final = frozenset({"cifs", "smb3"})

_DEVICE: Final = 2
"""The device number's place ("0:53") in a line of mountinfo, counted from 0."""
_POINT: Final = 4
"""The mount point's place in a line of mountinfo, counted from 0."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def file_system(path: Path) -> str:
    """Name the type of the file system that holds `path` ("ext4"), or "unknown"; touches storage."""
    try:
        table = MOUNTS.read_text("utf-8", "surrogateescape")
        return file_system_of(table, os.path.realpath(path))
    except OSError:
        return "unknown"


def file_system_of(table: str, path: str) -> str:
    """Find the type of the mount that holds an absolute path in a mountinfo table (proc(5)), or "unknown".

    The longest mount point wins, and of equal ones the last: it was mounted over the others.
    """
    best, found = -1, "unknown"
    for line in table.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) <= _POINT:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[_POINT])
        if _holds(point, path) and len(point) >= best:
            best, found = len(point), after.split(" ")[0]
    return found


def is_local(kind: str) -> bool:
    """Whether inotify sees every change of such a file system: only this machine can make one."""
    return kind in _LOCAL


def keeps_inode_numbers(device: int) -> bool:
    """Return whether an unchanged file on a device (st_dev) keeps its inode number; reads the mount table."""
    try:
        return keeps_inode_numbers_in(MOUNTS.read_text("utf-8", "surrogateescape"), device)
    except OSError:
        return True


def keeps_inode_numbers_in(table: str, device: int) -> bool:
    """Do so for a mountinfo table. True for a device that is not in it, such as a Btrfs subvolume's."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > _POINT and fields[_DEVICE] == wanted:
            kind, *rest = after.split(" ")
            return _keeps_inode_numbers(kind, rest[-1].split(",") if rest else ())
    return True


def _keeps_inode_numbers(kind: str, options: Collection[str]) -> bool:
    if kind in _CIFS:
        return "serverino" in options
    if kind.startswith("fuse"):
        return kind in _FUSE_WITH_INODES
    return kind not in _NUMBERED_ANEW


def watch_limit() -> int:
    """Return how many directories one user may watch (inotify(7)); 0 where nobody can; touches no storage."""
    try:
        return int(WATCHES.read_text("ascii"))
    except (OSError, ValueError):
        return 0


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
