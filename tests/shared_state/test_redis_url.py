from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.shared_state.redis_url import BadPasswordFile, complete_url, hide_password

URL = "redis://redis.example.com:6379/1?socket_keepalive=1"


@pytest.fixture
def secrets_dir(tmp_path: Path) -> Path:
    return tmp_path


def keep(folder: Path, password: bytes, mode: int = 0o440) -> None:
    (folder / "shared-state-password").write_bytes(password)
    (folder / "shared-state-password").chmod(mode)


@pytest.mark.parametrize(
    "content", [b"p:s/@?#%x \xc3\xa9", b"p:s/@?#%x \xc3\xa9\n", b"p:s/@?#%x \xc3\xa9\r\n"]
)
def test_password_of_the_secrets_directory_is_added(content: bytes, secrets_dir: Path) -> None:
    keep(secrets_dir, content)
    quoted = "p%3As%2F%40%3F%23%25x%20%C3%A9"
    expected = f"redis://:{quoted}@redis.example.com:6379/1?socket_keepalive=1"
    assert complete_url(URL, secrets_dir) == expected
    assert complete_url("rediss://acl@[::1]:6379", secrets_dir) == f"rediss://acl:{quoted}@[::1]:6379"


@pytest.mark.parametrize(
    "url",
    ["redis://:own@host/0", "redis://acl:own@host/0", "redis://host/0?password=own", "redis://acl:@host"],
)
def test_password_of_the_url_takes_precedence(url: str, secrets_dir: Path) -> None:
    keep(secrets_dir, b"other")
    assert complete_url(url, secrets_dir) == url


def test_url_is_complete_without_a_directory_or_a_file(secrets_dir: Path) -> None:
    assert complete_url(URL, None) == complete_url(URL, secrets_dir) == URL


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff", b"nul\0"])
def test_password_that_is_not_a_line_is_refused_and_not_quoted(content: bytes, secrets_dir: Path) -> None:
    keep(secrets_dir, content)
    with pytest.raises(
        BadPasswordFile, match=r"shared-state-password: not one line of printable characters$"
    ):
        complete_url(URL, secrets_dir)


def test_password_that_others_can_read_is_refused(secrets_dir: Path) -> None:
    keep(secrets_dir, b"secret", 0o644)
    with pytest.raises(BadPasswordFile, match=r"shared-state-password: .* run chmod 640"):
        complete_url(URL, secrets_dir)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("redis://:secret@host/1", "redis://:***@host/1"),
        ("rediss://acl:secret@[::1]:6379", "rediss://acl:***@[::1]:6379"),
        ("redis://host?password=secret", "redis://host?***"),
        ("redis://acl:secret@host?username=acl", "redis://acl:***@host?***"),
    ],
)
def test_shown_url_has_no_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown
