"""Which file system a path lies on, by the kernel's table of mounts, and whether its events tell all."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from time import monotonic
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")
MAX_USER_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")

_LOCAL_TYPES: Final = frozenset({
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "msdos", "nilfs2", "ntfs3",
    "overlay", "ramfs", "reiserfs", "tmpfs", "udf", "vfat", "xfs", "zfs",
})  # fmt: skip
_UNSTABLE_INODE_TYPES: Final = frozenset({"exfat", "msdos", "vboxsf", "vfat"})
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
_CACHED_FOR_S: Final = 5.0
"""The kernel gives the number of a file system that was unmounted to another."""
_names_cached: Final[dict[int, tuple[bool, float]]] = {}
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def file_system(path: Path) -> str:
    """Name the type of the file system that holds `path` ("ext4"), or "unknown"; touches storage."""
    try:
        table = MOUNTINFO.read_text("utf-8", "surrogateescape")
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
        point = unescaped(fields[_POINT])
        if holds(point, path) and len(point) >= best:
            best, found = len(point), after.split(" ")[0]
    return found


def mount_point(line: str) -> str:
    """Take the mount point out of a line of a mountinfo table; empty where there is none."""
    fields = line.split(" ")
    return unescaped(fields[_POINT]) if len(fields) > _POINT else ""


def is_local(kind: str) -> bool:
    """Whether inotify sees every change of such a file system: only this machine can make one."""
    return kind in _LOCAL_TYPES


def keeps_inode_numbers(device: int) -> bool:
    """Return whether an unchanged file on a device (st_dev) keeps its inode number; reads the mount table."""
    try:
        return keeps_inode_numbers_in(MOUNTINFO.read_text("utf-8", "surrogateescape"), device)
    except OSError:
        return True


def keeps_inode_numbers_in(table: str, device: int) -> bool:
    """Do so for a mountinfo table. True for a device that is not in it, such as a Btrfs subvolume's."""
    mount = _mount_on(table, device)
    return mount is None or _keeps_inode_numbers(*mount)


def _mount_on(table: str, device: int) -> tuple[str, Collection[str]] | None:
    """Return the type and the options of the first mount of a device; None where there is none."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > _POINT and fields[_DEVICE] == wanted:
            kind, *rest = after.split(" ")
            return kind, rest[-1].split(",") if rest else ()
    return None


def _keeps_inode_numbers(kind: str, options: Collection[str]) -> bool:
    if kind in _CIFS:
        return "serverino" in options
    if kind.startswith("fuse"):
        return kind in _FUSE_WITH_INODES
    return kind not in _UNSTABLE_INODE_TYPES


def may_cache_names(device: int) -> bool:
    """Return whether a file system may take a name for absent that another host has made; reads /proc.

    `device` is st_dev of anything on it. A file system on a block device does not; of the others the table
    of mounts tells which are local, except for subvolumes of Btrfs, which are not in it.
    """
    if os.major(device):
        return False
    now = monotonic()
    cached = _names_cached.get(device)
    if cached is None or now - cached[1] > _CACHED_FOR_S:
        cached = (not _is_local_device(device), now)
        _names_cached[device] = cached
    return cached[0]


def lists_from_server(device: int) -> bool:
    """Return whether listings of directories on a device (st_dev) are never cached; reads the mount table."""
    try:
        mount = _mount_on(MOUNTINFO.read_text("utf-8", "surrogateescape"), device)
    except OSError:
        return False
    return mount is not None and mount[0] == "fuse.glusterfs"


def _is_local_device(device: int) -> bool:
    try:
        mount = _mount_on(MOUNTINFO.read_text("utf-8", "surrogateescape"), device)
    except OSError:
        return False
    return mount is not None and is_local(mount[0])


def watch_limit() -> int:
    """Return how many directories one user may watch (inotify(7)); 0 where nobody can; touches no storage."""
    try:
        return int(MAX_USER_WATCHES.read_text("ascii"))
    except (OSError, ValueError):
        return 0


def unescaped(field: str) -> str:
    """Return a field of a mountinfo table as it is meant."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def holds(point: str, path: str) -> bool:
    """Whether an absolute path is a folder's own, or beneath it."""
    return path == point or path.startswith(point.rstrip("/") + "/")
