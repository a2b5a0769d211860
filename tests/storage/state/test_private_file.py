"""Which files are accepted in a secrets directory; those of the state directory are in the other tests."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from jobsvc.storage.state import private_file
from jobsvc.storage.state.private_file import lock_file, read_private, write_private
from tests.storage.state.secrets_folders import KubernetesSecret

OTHER_USER = 54_321


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o755)
    return secrets


def written(path: Path, mode: int = 0o640) -> Path:
    path.write_bytes(b"content")
    path.chmod(mode)
    return path


def read(path: Path) -> bytes:
    return read_private(path, 100, shared=True)


def given_to(path: Path, user: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(path, user, -1)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_group_may_read_a_file(mode: int, folder: Path) -> None:
    assert read(written(folder / "a", mode)) == b"content"


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o660, 0o620, 0o602, 0o601])
def test_file_that_others_can_read_or_write_is_refused(mode: int, folder: Path) -> None:
    with pytest.raises(ValueError, match="run chmod 640 on it, or set defaultMode: 0440"):
        read(written(folder / "a", mode))


def test_file_of_another_user_is_refused(folder: Path) -> None:
    given_to(written(folder / "a"), OTHER_USER)
    with pytest.raises(ValueError, match="belongs neither to root, nor to the service's user"):
        read(folder / "a")


def test_file_of_the_owner_of_the_directory_is_accepted(folder: Path) -> None:
    given_to(written(folder / "a"), OTHER_USER)
    given_to(folder, OTHER_USER)
    assert read(folder / "a") == b"content"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o770])
def test_directory_in_which_other_users_can_replace_files_is_refused(folder: Path, mode: int) -> None:
    written(folder / "a")
    folder.chmod(mode)
    with pytest.raises(ValueError, match="run chmod go-w on the directory"):
        read(folder / "a")
    folder.chmod(mode | stat.S_ISVTX)
    assert read(folder / "a") == b"content"


def test_mode_of_a_directory_that_is_mounted_read_only_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(folder / "a")
    folder.chmod(0o777)
    monkeypatch.setattr(private_file, "_is_read_only", lambda _folder: True)
    assert read(folder / "a") == b"content"


def test_secret_of_kubernetes_is_read_through_its_links(folder: Path) -> None:
    secret = KubernetesSecret(folder)
    for content in (b"one", b"two"):
        secret.replace({"a": content})
        assert read(folder / "a") == content


def test_target_of_a_link_is_checked(folder: Path) -> None:
    (folder / "a").symlink_to(written(folder / "b", 0o644))
    with pytest.raises(ValueError, match="run chmod 640 on it"):
        read(folder / "a")
    (folder / "fifo").symlink_to("pipe")
    os.mkfifo(folder / "pipe", 0o600)
    with pytest.raises(ValueError, match="not a regular file"):
        read(folder / "fifo")


def test_link_whose_target_is_replaced_while_it_is_opened_is_opened_again(folder: Path) -> None:
    secret = KubernetesSecret(folder)
    secret.replace({"a": b"one"})
    opened = []

    def open_during_replacement(path: Path, flags: int) -> int:
        opened.append(path)
        if len(opened) < 3:
            raise FileNotFoundError(errno.ENOENT, "the old version is gone", str(path))
        return os.open(path, flags)

    assert read_private(folder / "a", 100, open_during_replacement, shared=True) == b"one"


def test_missing_file_and_link_without_a_target_are_missing(folder: Path) -> None:
    (folder / "a").symlink_to("nowhere")
    for name in ("a", "b"):
        with pytest.raises(FileNotFoundError):
            read(folder / name)


def test_written_file_is_readable_by_the_group_only_if_its_directory_is(folder: Path) -> None:
    for mode, expected in ((0o700, 0o600), (0o750, 0o640)):
        folder.chmod(mode)
        write_private(folder / "a", b"x", shared=True)
        assert stat.S_IMODE((folder / "a").stat().st_mode) == expected
        assert (folder / "a").stat().st_gid == folder.stat().st_gid
    write_private(folder / "a", b"x")
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600


def test_written_file_has_the_group_of_its_directory(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory to another group")
    os.chown(folder, -1, OTHER_USER)
    write_private(folder / "a", b"x", shared=True)
    assert (folder / "a").stat().st_gid == OTHER_USER


def test_link_in_a_secrets_directory_is_not_replaced_by_a_file(folder: Path) -> None:
    KubernetesSecret(folder).replace({"a": b"one"})
    with pytest.raises(OSError, match="a symbolic link, so the file is managed elsewhere") as refused:
        lock_file(folder / "a", shared=True).__enter__()
    assert refused.value.errno == errno.EROFS
    assert "a" not in {path.name for path in folder.iterdir() if not path.is_symlink()}
