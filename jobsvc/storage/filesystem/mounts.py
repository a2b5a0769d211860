"""Look up file systems in the kernel's mount table, and what jobsvc can rely on for each type."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final, TypeAlias

MOUNTINFO: Final = Path("/proc/self/mountinfo")
MAX_USER_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")

_LOCAL_TYPES: Final = frozenset({
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "msdos", "nilfs2", "ntfs3",
    "overlay", "ramfs", "reiserfs", "tmpfs", "udf", "vfat", "xfs", "zfs",
})  # fmt: skip
_UNSTABLE_INODE_TYPES: Final = frozenset({"exfat", "msdos", "vboxsf", "vfat"})
"""Types that number inodes at lookup; most FUSE file systems and CIFS with noserverino do so too."""
_FUSE_WITH_INODES: Final = frozenset(
    {"fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.mfs"}
)
"""FUSE types whose server keeps inode numbers."""
_CIFS: Final = frozenset({"cifs", "smb3"})

_Mount: TypeAlias = tuple[str, Collection[str]]
"""Type and options of a mount."""

_DEVICE: Final = 2
"""Index of the device number ("0:53") in a line of mountinfo."""
_POINT: Final = 4
"""Index of the mount point in a line of mountinfo."""
_CACHED_FOR_S: Final = 5.0
"""Seconds for which a result is cached: the device number may be reused after an unmount."""
_mounts_by_device: Final[dict[int, tuple[_Mount | None, float]]] = {}
"""The mount of each device (st_dev), and when it was looked up (monotonic seconds)."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def read_table() -> str:
    """Return the mount table as text (proc(5)); empty if it cannot be read."""
    try:
        return MOUNTINFO.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def file_system(path: Path) -> str:
    """Return the type of the file system of `path` ("ext4"), or "unknown"; accesses storage."""
    return file_system_of(read_table(), os.path.realpath(path))


def file_system_of(table: str, path: str) -> str:
    """Return the type of the mount of an absolute path from a mountinfo table (proc(5)), or "unknown".

    The longest matching mount point applies; of equal ones the last, which is mounted over the others.
    """
    longest, kind = -1, "unknown"
    for line in table.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) <= _POINT:
            continue
        point = unescaped(fields[_POINT])
        if contains(point, path) and len(point) >= longest:
            longest, kind = len(point), after.split(" ")[0]
    return kind


def mount_point(line: str) -> str:
    """Return the mount point in a line of a mountinfo table; empty if there is none."""
    fields = line.split(" ")
    return unescaped(fields[_POINT]) if len(fields) > _POINT else ""


def is_local(kind: str) -> bool:
    """Return whether inotify sees every change on this type: only this machine can make changes."""
    return kind in _LOCAL_TYPES


def keeps_inode_numbers(device: int) -> bool:
    """Return whether inode numbers on a device (st_dev) are stable.

    True for a device that is not in the mount table, such as a Btrfs subvolume.
    """
    mount = _mount_of(device)
    return mount is None or _keeps_inode_numbers(*mount)


def may_cache_names(device: int) -> bool:
    """Return whether a device may report a name as absent after another host created it.

    A file system on a block device does not. For the others the mount table shows which are local; a Btrfs
    subvolume is not in the table and counts as not local.
    """
    if os.major(device):
        return False
    mount = _mount_of(device)
    return mount is None or not is_local(mount[0])


def lists_from_server(device: int) -> bool:
    """Return whether directory listings on a device are never cached."""
    mount = _mount_of(device)
    return mount is not None and mount[0] == "fuse.glusterfs"


def _mount_of(device: int) -> _Mount | None:
    """Return the first mount of a device (st_dev); reads /proc, and caches the result for 5 s."""
    now = monotonic()
    mount, looked_up_at = _mounts_by_device.get(device, (None, -inf))
    if now - looked_up_at > _CACHED_FOR_S:
        mount = _mount_in(read_table(), device)
        _mounts_by_device[device] = mount, now
    return mount


def _mount_in(table: str, device: int) -> _Mount | None:
    """Return the first mount of a device in a mount table; None if there is none."""
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


def watch_limit() -> int:
    """Return how many directories one user may watch (inotify(7)); 0 if unavailable. No storage access."""
    try:
        return int(MAX_USER_WATCHES.read_text("ascii"))
    except (OSError, ValueError):
        return 0


def unescaped(field: str) -> str:
    """Return a field of a mountinfo table with its octal escapes decoded."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def contains(point: str, path: str) -> bool:
    """Return whether an absolute path is `point` or below it."""
    return path == point or path.startswith(point.rstrip("/") + "/")
