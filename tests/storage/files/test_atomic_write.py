from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobsvc.storage.files.atomic_write import write_atomically
from jobsvc.storage.layout import TEMP_PREFIX, is_job_id


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Make every write past `size` bytes fail with EFBIG, as a full disk makes it fail with ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_new_file_has_the_data_and_no_temporary_file_remains(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
def test_mode_is_as_requested_whatever_the_umask_and_the_old_file(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o400)
    write_atomically(path, b"new", mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_reader_of_the_old_file_reads_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with path.open("rb") as old:
        write_atomically(path, b"new and longer")
        assert old.read() == b"old"


def test_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "file").symlink_to("elsewhere")
    write_atomically(tmp_path / "file", b"data")
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    assert not (tmp_path / "file").is_symlink()


def test_failed_write_keeps_the_old_file_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with files_limited_to(1000), pytest.raises(OSError, match="File too large"):
        write_atomically(path, b"x" * 2000)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_failed_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "file", b"data")
    assert names(tmp_path) == ["file"]


def test_missing_directory_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", b"data")
    assert names(tmp_path) == []


def test_no_failure_leaks_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    before = descriptors()
    for _ in range(5):
        with pytest.raises(IsADirectoryError):
            write_atomically(tmp_path / "file", b"data")
    assert descriptors() == before


def test_reader_never_sees_a_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    versions = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomically(path, versions[0])
    torn, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            if (seen := path.read_bytes()) not in versions:
                torn.append(len(seen))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        write_atomically(path, versions[turn % 2])
    done.set()
    reader.join()
    assert torn == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_written_by_root_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    write_atomically(tmp_path / "file", b"data", 0o600)
    assert (tmp_path / "file").stat().st_uid == 12345


def test_temporary_name_is_not_a_job_id() -> None:
    assert not is_job_id(TEMP_PREFIX + "x")


@pytest.mark.parametrize("fault", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_file_is_kept_if_the_directory_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    fail_directory_sync(monkeypatch, fault)
    write_atomically(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"


def test_error_of_the_directory_sync_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_directory_sync(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "file", b"data")


def fail_directory_sync(monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(fault, os.strerror(fault))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
