"""The record of created links, and the file of revoked ones."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from jobsvc.storage.files.descriptor_reserve import DescriptorReserve
from jobsvc.storage.state import links_file, private_file, revoked_links_file
from jobsvc.storage.state.link_record import (
    IssuedLink,
    is_link_id,
    link_id,
    parse_issued_link,
    parse_link_name,
)
from jobsvc.storage.state.links_file import LinksFile, load_links
from jobsvc.storage.state.revoked_links_file import BadRevokedLinks, add_revoked, load_revoked
from tests.storage.state.secrets_folders import KubernetesSecret

SIGNATURE = "WyUXhO2qSmPAfXZlMvgvvLvLzW5B1p1mKyr3cTqSNlw"
NOW = 1_800_000_000.0
OLD_NS = 1_700_000_000 * 10**9


def link(number: int, expires: float = NOW + 60) -> IssuedLink:
    return IssuedLink(f"{number:016x}", "job", "Träume.mp4", "token", "anna", NOW, expires)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "links.jsonl"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_record_is_one_line_and_can_be_read_back() -> None:
    assert b"\n" not in link(1).line()
    assert parse_issued_link(link(1).line()) == link(1)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        link(1).line()[:-1],
        link(1).line().replace(b'"anna"', b"1"),
        link(1).line().replace(b'"job":"job"', b'"job":"a\\nb"'),
        link(1).line().replace(b"0000000001", b"000000000g"),
        link(1).line().replace(b"2027", b"x"),
    ],
)
def test_invalid_record_is_none(line: bytes) -> None:
    assert parse_issued_link(line) is None


@pytest.mark.parametrize(
    "url",
    [
        f"https://h/api/jobs/j/download/a?version=v&token=t&expires=1800000000500&signature={SIGNATURE}",
        f"/a?version=v&token=t&expires=1800000000500&inline=1&signature={SIGNATURE}#t=10",
    ],
)
def test_url_names_the_id_of_its_link(url: str) -> None:
    assert parse_link_name(url) == link_id(SIGNATURE)


def test_id_names_a_link_and_other_text_does_not() -> None:
    name = link_id(SIGNATURE)
    assert is_link_id(name)
    assert parse_link_name(name) == name
    for text in (
        "",
        name.upper(),
        name + "0",
        SIGNATURE,
        f"/a?signature={SIGNATURE}&x=1",
        "/a?expires=1&signature=x",
    ):
        assert parse_link_name(text) is None


def test_links_are_appended_in_order(path: Path) -> None:
    file = LinksFile(path)
    file.append([link(1)], NOW)
    file.append([link(2), link(3)], NOW)
    assert load_links(path) == [link(1), link(2), link(3)]
    assert mode(path) == 0o600
    assert load_links(path.with_name("missing")) == []


def test_expired_links_are_dropped_by_the_first_append(path: Path) -> None:
    LinksFile(path).append([link(1), link(2, NOW + 1)], NOW)
    LinksFile(path).append([], NOW + 1)
    assert load_links(path) == [link(1)]


def test_nothing_is_created_without_a_link(path: Path) -> None:
    LinksFile(path).append([], NOW)
    assert not list(path.parent.iterdir())


def test_file_is_rewritten_when_it_has_doubled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_file, "MIN_REWRITE_BYTES", 1)
    file = LinksFile(path)
    file.append([link(1), link(2, NOW + 1)], NOW)
    file.append([link(3)], NOW + 1)
    assert len(load_links(path)) == 3
    file.append([link(4), link(5)], NOW + 1)
    assert load_links(path) == [link(1), link(3), link(4), link(5)]


def test_only_the_newest_links_are_kept(path: Path) -> None:
    LinksFile(path, max_links=2).append([link(1), link(2), link(3)], NOW)
    assert load_links(path) == [link(2), link(3)]


def test_incomplete_last_line_is_skipped_and_not_continued(path: Path) -> None:
    file = LinksFile(path)
    file.append([link(1)], NOW)
    with path.open("ab") as opened:
        opened.write(link(2).line()[:20])
    file.append([link(3)], NOW)
    assert load_links(path) == [link(1), link(3)]


def test_file_that_others_can_read_is_an_error(path: Path) -> None:
    LinksFile(path).append([link(1)], NOW)
    path.chmod(0o644)
    with pytest.raises(OSError, match="users other than its owner can read"):
        LinksFile(path).append([link(2)], NOW)


@pytest.mark.parametrize("reason", ["readable", "too large", "directory is read-only"])
def test_file_that_cannot_be_rewritten_does_not_grow(
    reason: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_file, "MIN_REWRITE_BYTES", 0)
    file = LinksFile(path)
    file.append([link(1)], NOW)
    size = path.stat().st_size
    if reason == "readable":
        path.chmod(0o644)
    elif reason == "too large":
        monkeypatch.setattr(links_file, "MAX_FILE_BYTES", size - 1)
    else:
        monkeypatch.setattr(private_file, "write_private", _refuse)
    for each in (file, LinksFile(path)):
        for _ in range(5):
            with suppress(OSError):
                each.append([link(2)], NOW)  # the caller repeats it until it succeeds
    assert path.stat().st_size <= 2 * size


def _refuse(path: Path, _data: bytes) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@pytest.fixture
def revoked(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "revoked-links.json"


def test_revoked_links_are_kept_until_they_expire(revoked: Path) -> None:
    add_revoked(revoked, {"0" * 16: NOW + 1}, NOW)
    add_revoked(revoked, {"1" * 16: NOW + 2}, NOW)
    assert load_revoked(revoked).links == {"0" * 16: NOW + 1, "1" * 16: NOW + 2}
    add_revoked(revoked, {}, NOW + 1)
    assert load_revoked(revoked).links == {"1" * 16: NOW + 2}
    assert (mode(revoked), mode(revoked.parent)) == (0o600, 0o700)


def test_missing_file_revokes_nothing(revoked: Path) -> None:
    assert load_revoked(revoked) == (None, {})


def test_unchanged_file_is_not_read_again(revoked: Path) -> None:
    add_revoked(revoked, {"0" * 16: NOW}, 0)
    os.utime(revoked, ns=(OLD_NS, OLD_NS))
    state = load_revoked(revoked)
    assert load_revoked(revoked, state, DescriptorReserve()) is state
    add_revoked(revoked, {"1" * 16: NOW}, 0)
    assert len(load_revoked(revoked, state).links) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"links": []}',
        b'{"links": {"0000000000000000": 1}}',
        b'{"links": {"x": "2026-01-01T00:00:00Z"}}',
    ],
)
def test_invalid_file_is_refused_and_kept(content: bytes, revoked: Path) -> None:
    revoked.parent.mkdir()
    revoked.write_bytes(content)
    revoked.chmod(0o600)
    with pytest.raises(BadRevokedLinks, match=r"revoked-links\.json: "):
        add_revoked(revoked, {"0" * 16: NOW}, 0)
    assert revoked.read_bytes() == content


def test_full_file_is_an_error(revoked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoked_links_file, "MAX_FILE_BYTES", 100)
    add_revoked(revoked, {"0" * 16: NOW}, 0)
    with pytest.raises(BadRevokedLinks, match="is full"):
        add_revoked(revoked, {"1" * 16: NOW}, 0)


def test_revoked_links_of_a_kubernetes_secret_are_read(revoked: Path, tmp_path: Path) -> None:
    add_revoked(revoked, {"0" * 16: NOW}, 0)
    secret = KubernetesSecret(tmp_path / "secret")
    secret.replace({"revoked-links.json": revoked.read_bytes()})
    assert load_revoked(secret.folder / "revoked-links.json", shared=True).links == {"0" * 16: NOW}
