from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobsvc.storage.state import link_key
from jobsvc.storage.state.link_key import BadLinkKey, load_or_create


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "link.key"


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_key_is_created_once_from_256_random_bits(path: Path, tmp_path: Path) -> None:
    key = load_or_create(path)
    assert len(key) == 32
    assert [load_or_create(path) for _ in range(3)] == [key] * 3
    assert load_or_create(tmp_path / "other" / "link.key") != key


def test_directory_and_files_are_readable_only_by_the_owner(path: Path) -> None:
    mask = os.umask(0)
    try:
        load_or_create(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"link.key": 0o600, ".jobsvc-link.key.lock": 0o600}


def test_processes_started_together_share_one_key(path: Path) -> None:
    program = (
        "import sys, pathlib; from jobsvc.storage.state.link_key import load_or_create\n"
        "sys.stdin.read(1); print(load_or_create(pathlib.Path(sys.argv[1])).hex())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    outputs = {process.communicate(timeout=60)[0].strip() for process in started}
    assert outputs == {path.read_text().strip()}


def test_key_created_while_waiting_for_the_lock_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = load_or_create(path)
    looks = iter([None, theirs])
    monkeypatch.setattr(link_key, "_load", lambda _path: next(looks))
    assert load_or_create(path) == theirs
    assert path.read_text().strip() == theirs.hex()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o666])
def test_file_accessible_to_others_is_refused(path: Path, mode: int) -> None:
    with pytest.raises(BadLinkKey, match=r"link\.key: users other than its owner can read or write it"):
        load_or_create(written(path, b"0" * 64, mode))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"0" * 63,
        b"0" * 63 + b"\n",
        b"0" * 64 + b"\r",
        b"G" * 64,
        b"A" * 64,
        b"\0" * 64,
        b"\xff" * 32,
    ],
)
def test_malformed_key_is_refused_and_kept(path: Path, content: bytes) -> None:
    with pytest.raises(BadLinkKey, match=r"link\.key: not 32 bytes in hex; remove it"):
        load_or_create(written(path, content))
    assert path.read_bytes() == content


def test_too_large_file_is_refused_unread(path: Path) -> None:
    with pytest.raises(BadLinkKey, match="larger than 65 bytes"):
        load_or_create(written(path, b"0" * 66))


def test_line_feed_may_be_missing(path: Path) -> None:
    assert load_or_create(written(path, b"0f" * 32)) == b"\x0f" * 32


def test_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(written(tmp_path / "elsewhere", b"0" * 64))
    with pytest.raises(BadLinkKey, match="a symbolic link"):
        load_or_create(path)


def test_special_file_is_refused_without_blocking(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(BadLinkKey, match="not a regular file"):
        load_or_create(path)


def test_impossible_directory_is_reported_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadLinkKey, match="Not a directory"):
        load_or_create(tmp_path / "file" / "link.key")


def test_refusal_quotes_no_part_of_the_file(path: Path) -> None:
    with pytest.raises(BadLinkKey) as refused:
        load_or_create(written(path, b"5e" * 31 + b"zz"))
    assert "5e5e" not in f"{refused.value!r} {refused.value.__cause__!r}"


def test_check_of_a_key_that_cannot_be_opened_names_the_reason(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("elsewhere")
    with pytest.raises(BadLinkKey, match=r"link\.key: a symbolic link"):
        link_key.check(path)


def test_error_of_the_lock_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(BadLinkKey, match=r"link\.key: Input/output error"):
        load_or_create(path)


def test_key_of_a_secrets_directory_is_created_once_and_read(tmp_path: Path) -> None:
    path = tmp_path / "link.key"
    assert link_key.create_shared(path)
    assert not link_key.create_shared(path)
    path.chmod(0o440)
    assert link_key.load_shared(path).hex() == path.read_text().strip()


def test_missing_key_of_a_secrets_directory_is_refused_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(BadLinkKey, match=rf"missing; run `jobsvc secrets create --secrets-dir {tmp_path}`"):
        link_key.load_shared(tmp_path / "link.key")
    assert not list(tmp_path.iterdir())


def test_unusable_key_of_a_secrets_directory_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "link.key", b"wrong")
    for use in (link_key.load_shared, link_key.create_shared):
        with pytest.raises(BadLinkKey, match="not 32 bytes in hex"):
            use(path)
    assert path.read_bytes() == b"wrong"
