from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobsvc.storage.filesystem import mounts
from jobsvc.storage.filesystem.mounts import (
    file_system,
    file_system_of,
    is_local,
    keeps_inode_numbers,
    watch_limit,
)

TABLE = """\
22 1 0:21 / / rw shared:1 - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
40 22 0:50 / /mnt/jobs rw - nfs4 farm:/jobs rw
41 22 0:51 / /mnt/job\\040s rw master:3 - cifs //farm/jobs rw
42 22 0:52 / /mnt/over rw - ext4 /dev/vdb rw
43 42 0:53 / /mnt/over rw - fuse.sshfs farm: rw
a line that says nothing
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/mnt", "ext4"),
        ("/mnt/jobs", "nfs4"),
        ("/mnt/jobs/a/b", "nfs4"),
        ("/mnt/jobs2", "ext4"),
        ("/mnt/job s/x", "cifs"),
        ("/mnt/over/x", "fuse.sshfs"),
    ],
)
def test_longest_and_last_mount_above_a_path_decides(path: str, kind: str) -> None:
    assert file_system_of(TABLE, path) == kind


def test_path_below_no_mount_is_unknown() -> None:
    assert file_system_of("", "/x") == "unknown"


@pytest.mark.parametrize(
    ("kind", "local"), [("ext4", True), ("tmpfs", True), ("nfs4", False), ("unknown", False)]
)
def test_only_file_systems_that_no_other_host_can_change_are_local(kind: str, local: bool) -> None:  # noqa: FBT001 - a table
    assert is_local(kind) is local


@pytest.mark.parametrize(
    ("mount", "kept"),
    [
        ("ext4 /dev/vda rw", True),
        ("nfs4 farm:/jobs rw", True),
        ("fuse.glusterfs farm:/jobs rw", True),
        ("fuse.sshfs farm: rw", False),
        ("fuse s3fs rw", False),
        ("fuse.rclone farm: rw", False),
        ("fuseblk /dev/sdb1 rw", False),
        ("vfat /dev/sdb1 rw", False),
        ("cifs //farm/jobs rw,vers=3.1.1,serverino,mapposix", True),
        ("cifs //farm/jobs rw,vers=3.1.1,noserverino", False),
        ("smb3 //farm/jobs rw", False),
    ],
)
def test_inode_numbers_are_used_only_where_the_file_system_keeps_them(
    monkeypatch: pytest.MonkeyPatch, mount: str, *, kept: bool
) -> None:
    table = f"{TABLE}44 22 0:60 / /mnt/x rw shared:1 - {mount}\n"
    monkeypatch.setattr(mounts, "read_table", lambda: table)
    monkeypatch.setattr(mounts, "_mounts_by_device", {})
    assert keeps_inode_numbers(os.makedev(0, 60)) is kept


def test_inode_numbers_of_a_device_without_a_mount_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "read_table", lambda: TABLE)
    monkeypatch.setattr(mounts, "_mounts_by_device", {})
    assert keeps_inode_numbers(os.makedev(0, 99))


def test_mount_of_a_device_is_looked_up_again_after_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, table = [100.0], ["44 22 0:60 / /mnt/x rw shared:1 - fuse.sshfs farm: rw"]
    monkeypatch.setattr(mounts, "monotonic", lambda: now[0])
    monkeypatch.setattr(mounts, "read_table", lambda: table[0])
    monkeypatch.setattr(mounts, "_mounts_by_device", {})
    assert not keeps_inode_numbers(os.makedev(0, 60))
    table[0] = ""
    now[0] = 105.0
    assert not keeps_inode_numbers(os.makedev(0, 60))
    now[0] = 105.1
    assert keeps_inode_numbers(os.makedev(0, 60))


def test_inode_numbers_of_this_machines_root_are_used() -> None:
    assert keeps_inode_numbers(Path("/proc").stat().st_dev)


def test_proc_of_this_host_is_proc() -> None:
    assert file_system(Path("/proc/self")) == "proc"


def test_watch_limit_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert watch_limit() > 0
    monkeypatch.setattr(mounts, "MAX_USER_WATCHES", tmp_path / "none")
    assert watch_limit() == 0


def test_unreadable_mount_table_makes_everything_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "none")
    monkeypatch.setattr(mounts, "_mounts_by_device", {})
    assert file_system(tmp_path) == "unknown"
    # st_dev of an anonymous device, which a mount table has to describe
    assert mounts.keeps_inode_numbers(7) is True
    assert mounts.lists_from_server(7) is False
