from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ, SCOPES, Token
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.state import token_file
from jobsvc.storage.state.token_file import (
    BadTokenFile,
    EndedToken,
    TokenFileState,
    UnknownToken,
    create,
    load,
    load_if_changed,
    revoke,
    rotate,
)
from jobsvc.storage.state.token_format import BadTokens, parse_tokens, render_tokens
from tests.storage.state.secrets_folders import KubernetesSecret


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tokens.json"


def entry(**changes: object) -> dict[str, object]:
    return {
        "id": "0123456789ab",
        "owner": "alice",
        "scopes": ["jobs:read"],
        "digest": "00" * 32,
        "created": "2026-01-02T03:04:05Z",
        "expires": None,
        "revoked": None,
    } | changes


def written(path: Path, content: object, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(mode)
    return path


def file_of(*entries: object) -> dict[str, object]:
    return {"version": 1, "tokens": list(entries)}


def test_token_is_jsvc_and_256_random_bits(path: Path) -> None:
    secret, _ = create(path, "alice")
    assert re.fullmatch(r"jsvc_[A-Za-z0-9_-]{43}", secret)
    assert len(base64.urlsafe_b64decode(secret.removeprefix("jsvc_") + "=")) == 32
    assert create(path, "alice")[0] != secret


def test_file_stores_the_digest_and_never_the_secret(path: Path) -> None:
    secret, token = create(path, "alice")
    assert token.digest == hashlib.sha256(secret.encode()).digest()
    text = path.read_text()
    assert token.digest.hex() in text
    assert secret not in text
    assert secret.removeprefix("jsvc_") not in text


def test_created_token_is_loaded(path: Path) -> None:
    expires = time.time() + 3600.123456
    made = [create(path, "alice")[1], create(path, "bob", [ADMIN], expires)[1]]
    assert load(path) == tuple(made)
    assert made[0].scopes == {JOBS_READ, OUTPUTS_READ}
    assert made[0].expires is None
    assert made[1].expires == round(expires, 3)


def test_repr_shows_neither_secret_nor_digest(path: Path) -> None:
    secret, token = create(path, "alice")
    for form in (repr(token.digest), token.digest.hex(), secret, secret.removeprefix("jsvc_")):
        assert form not in repr(token)
        assert form not in str(token)
    assert token.id in repr(token)


def test_directory_and_file_are_readable_only_by_the_owner(path: Path) -> None:
    create(path, "alice")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_missing_file_has_no_tokens(path: Path) -> None:
    assert load(path) == ()
    path.parent.mkdir()
    assert load(path) == ()


def test_revoked_token_stays_in_the_file_with_the_time(path: Path) -> None:
    first, second = create(path, "alice")[1], create(path, "bob")[1]
    gone = revoke(path, first.id)
    assert gone.revoked == pytest.approx(time.time(), abs=30)
    assert load(path) == (gone, second)
    assert not gone.alive(time.time())


def test_second_revocation_keeps_the_first_time(path: Path) -> None:
    token = create(path, "alice")[1]
    once = revoke(path, token.id)
    before = path.stat()
    assert revoke(path, token.id) == once
    assert path.stat().st_ino == before.st_ino


def test_unknown_id_cannot_be_revoked(path: Path) -> None:
    with pytest.raises(UnknownToken):
        revoke(path, "0123456789ab")
    assert not path.parent.exists()
    create(path, "alice")
    with pytest.raises(UnknownToken):
        revoke(path, "0123456789ab")


@pytest.mark.parametrize("owner", ["", "a\nb", "\x1b[2J", "x" * 257, "\udcff"])
def test_owner_with_a_line_break_is_refused(path: Path, owner: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        create(path, owner)
    assert load(path) == ()


def test_unknown_scope_is_refused_and_the_file_is_kept(path: Path) -> None:
    create(path, "alice")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"tokens\[1\]\.scopes"):
        create(path, "bob", ["jobs:write"])
    assert path.read_bytes() == before


def test_file_that_would_be_too_large_is_not_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path, "alice")
    monkeypatch.setattr(token_file, "MAX_FILE_BYTES", path.stat().st_size + 10)
    with pytest.raises(BadTokenFile, match="full"):
        create(path, "bob")
    assert len(load(path)) == 1


def test_parallel_creations_in_several_processes_lose_nothing(path: Path) -> None:
    program = (
        "import sys, pathlib; from jobsvc.storage.state.token_file import create\n"
        "for _ in range(10): create(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path), f"owner-{number}"]) for number in range(4)
    ]
    assert [process.wait(30) for process in running] == [0] * 4
    assert len({token.id for token in load(path)}) == 40


def test_no_temporary_file_remains(path: Path) -> None:
    create(path, "alice")
    assert names(path.parent) == [".jobsvc-tokens.json.lock", "tokens.json"]


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o601, 0o777])
def test_file_accessible_to_others_is_refused(path: Path, mode: int) -> None:
    with pytest.raises(BadTokenFile, match="chmod 600"):
        load(written(path, file_of(), mode))


def test_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(written(tmp_path / "real.json", file_of()))
    with pytest.raises(BadTokenFile, match="symbolic link"):
        load(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_special_file_is_refused_without_blocking(path: Path, make: Callable[[Path, int], None]) -> None:
    path.parent.mkdir()
    make(path, 0o600)
    with pytest.raises(BadTokenFile, match="not a regular file"):
        load(path)


def test_unreachable_path_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(BadTokenFile, match="Not a directory"):
        load(tmp_path / "state" / "tokens.json")


def test_too_large_file_is_refused_unread(path: Path) -> None:
    written(path, b"")
    os.truncate(path, token_file.MAX_FILE_BYTES + 1)
    with pytest.raises(BadTokenFile, match="larger than"):
        load(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"version": 1, "tokens": [', "not JSON"),
        (b"[" * 200_000, "not JSON"),
        ([], "not an object"),
        ({}, "version"),
        ({"version": 2, "tokens": []}, "version"),
        ({"version": True, "tokens": []}, "version"),
        ({"version": "1", "tokens": []}, "version"),
        ({"version": 1}, "tokens: not a list"),
        ({"version": 1, "tokens": {}}, "tokens: not a list"),
        (file_of(entry(), 7), r"tokens\[1\]: not an object"),
        (file_of(entry(expire=None)), r"tokens\[0\]: has an unknown key that looks like 'expires'"),
        (file_of(entry(Expires=None)), r"tokens\[0\]: has an unknown key that looks like 'expires'"),
        (file_of(entry(revokedAt=None)), r"tokens\[0\]: has an unknown key that looks like 'revoked'"),
        (file_of(entry(id=7)), r"tokens\[0\]\.id: not a string"),
        (file_of(entry(id="a b")), r"tokens\[0\]\.id: does not match"),
        (file_of(entry(owner=None)), r"tokens\[0\]\.owner: not a string"),
        (file_of(entry(owner="")), r"tokens\[0\]\.owner: not a name"),
        (file_of(entry(scopes="jobs:read")), r"tokens\[0\]\.scopes"),
        (file_of(entry(scopes=[["jobs:read"]])), r"tokens\[0\]\.scopes"),
        (file_of(entry(scopes=["jobs:write"])), r"tokens\[0\]\.scopes"),
        (file_of(entry(digest="00")), r"tokens\[0\]\.digest"),
        (file_of(entry(digest="ZZ" * 32)), r"tokens\[0\]\.digest"),
        (file_of(entry(created=None)), r"tokens\[0\]\.created: missing"),
        (file_of(entry(created=1.5)), r"tokens\[0\]\.created: not"),
        (file_of(entry(expires="tomorrow")), r"tokens\[0\]\.expires: not"),
        (file_of(entry(revoked="1969-12-31T23:59:59Z")), r"tokens\[0\]\.revoked: before"),
        (file_of(entry(), entry(digest="11" * 32)), "same id"),
        (file_of(entry(), entry(id="other")), "same digest"),
    ],
)
def test_malformed_member_is_refused_by_name(path: Path, content: object, named: str) -> None:
    with pytest.raises(BadTokenFile, match=named) as refused:
        load(written(path, content))
    assert str(path) in str(refused.value)


def test_unknown_members_are_kept_when_the_file_changes(path: Path) -> None:
    note = {"by": ["ops", 1, None], "ü": 1.5}
    written(path, {**file_of(entry(note=note), entry(id="b", digest="11" * 32, note=2)), "more": note})
    token = create(path, "bob")[1]
    revoke(path, "b")
    record = json.loads(path.read_bytes())
    assert record["more"] == note
    assert [each.get("note") for each in record["tokens"]] == [note, 2, None]
    assert record["tokens"][1]["revoked"] is not None
    assert record["tokens"][2]["id"] == token.id


def test_labels_are_stored_in_a_separate_file(path: Path) -> None:
    labeled = create(path, "alice", label="Portal, Träume")[1]
    plain = create(path, "bob")[1]
    assert [token.label for token in load(path)] == ["Portal, Träume", None]
    assert load(path) == (labeled, plain)
    keys = {"id", "owner", "scopes", "digest", "created", "expires", "revoked"}
    assert all(each.keys() == keys for each in json.loads(path.read_bytes())["tokens"])
    assert stat.S_IMODE((path.parent / "token-labels.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("label", ["", "a\nb", "\x1b[2J", "x" * 257, "\udcff"])
def test_label_with_a_line_break_is_refused(path: Path, label: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        create(path, "alice", label=label)
    assert load(path) == ()


BAD_LABELS = [b"{", b"[]", b'{"0123456789ab": 1}', b'{"0123456789ab": "a\\nb"}']


@pytest.mark.parametrize("content", BAD_LABELS)
def test_invalid_labels_file_is_refused_by_name(path: Path, content: bytes) -> None:
    written(path, file_of(entry()))
    written(path.parent / "token-labels.json", content)
    for change in (lambda: load(path), lambda: create(path, "alice"), lambda: token_file.prune(path)):
        with pytest.raises(BadTokenFile, match=r"token-labels\.json: "):
            change()
    assert (path.parent / "token-labels.json").read_bytes() == content


@pytest.mark.parametrize("content", BAD_LABELS)
def test_tokens_with_bad_labels_are_read_and_revoked_without_them(path: Path, content: bytes) -> None:
    token = create(path, "alice", label="portal")[1]
    labels = path.parent / "token-labels.json"
    written(labels, content)
    revoke(path, token.id)
    known = load_if_changed(path)
    assert [(each.label, each.revoked is None) for each in known.tokens] == [(None, False)]
    assert str(known.label_fault).startswith(f"{labels}: ")
    assert labels.read_bytes() == content


def test_labels_are_read_again_until_they_are_usable(path: Path) -> None:
    token = create(path, "alice", label="portal")[1]
    os.utime(path, (time.time() - 60,) * 2)
    labels = path.parent / "token-labels.json"
    good = labels.read_bytes()
    labels.chmod(0o644)
    known = load_if_changed(path)
    assert "chmod 600" in str(known.label_fault)
    written(labels, good)
    assert load_if_changed(path, known).tokens == (token,)


def test_token_can_be_revoked_by_its_secret(path: Path) -> None:
    secret, token = create(path, "alice")
    create(path, "bob")
    assert revoke(path, secret).id == token.id
    assert [each.revoked is None for each in load(path)] == [False, True]


@pytest.mark.parametrize("name", ["jsvc_" + "A" * 43, "", "ü", "\udcff"])
def test_unknown_secret_revokes_nothing(path: Path, name: str) -> None:
    create(path, "alice")
    with pytest.raises(UnknownToken):
        revoke(path, name)


def test_pruning_removes_expired_tokens_and_their_labels_and_no_others(path: Path) -> None:
    now = time.time()
    kept = [
        create(path, "alice", label="stays")[1],
        create(path, "alice", expires=now + 3600)[1],
        revoke(path, create(path, "bob")[1].id),
    ]
    gone = create(path, "carol", expires=now - 1, label="goes")[1]
    assert token_file.prune(path) == [gone]
    assert load(path) == tuple(kept)
    assert json.loads((path.parent / "token-labels.json").read_bytes()) == {kept[0].id: "stays"}
    before = path.stat().st_ino
    assert token_file.prune(path) == []
    assert path.stat().st_ino == before


def test_pruning_does_not_create_a_state_directory(path: Path) -> None:
    assert token_file.prune(path) == []
    assert not path.parent.exists()


def test_malformed_file_is_not_overwritten(path: Path) -> None:
    written(path, b"{half")
    for change in (lambda: create(path, "alice"), lambda: revoke(path, "0123456789ab")):
        with pytest.raises(BadTokenFile):
            change()
    assert path.read_bytes() == b"{half"


def test_refusal_quotes_no_part_of_the_file(path: Path) -> None:
    secret = "jsvc_" + "s" * 43
    for content in (
        b'{"version": 1, "tokens": [' + secret.encode(),
        file_of({secret: secret}),
        *(file_of(entry(**{key: value})) for key in entry() for value in (secret + "\n", [secret])),
    ):
        with pytest.raises(BadTokenFile) as refused:
            load(written(path, content))
        assert "sss" not in str(refused.value)
        assert "sss" not in str(refused.value.__cause__)


def test_null_equals_a_missing_member(path: Path) -> None:
    short = entry()
    del short["expires"], short["revoked"]
    (token,) = load(written(path, file_of(short)))
    assert (token.expires, token.revoked) == (None, None)


def test_unchanged_file_is_not_read_again(path: Path) -> None:
    create(path, "alice")
    os.utime(path, (time.time() - 60,) * 2)
    known = load_if_changed(path)
    assert load_if_changed(path, known) is known


def test_file_changed_just_now_is_read_again_because_of_coarse_clocks(path: Path) -> None:
    create(path, "alice")
    known = load_if_changed(path)
    assert load_if_changed(path, known) is not known
    assert load_if_changed(path, known) == known


def test_removed_file_is_a_new_version_without_tokens(path: Path) -> None:
    create(path, "alice")
    known = load_if_changed(path)
    path.unlink()
    assert load_if_changed(path, known) == TokenFileState(None, ())
    assert load_if_changed(path, TokenFileState(None, ())) == TokenFileState(None, ())


def test_new_file_is_read(path: Path) -> None:
    before = load_if_changed(path)
    token = create(path, "alice")[1]
    version, found, _ = load_if_changed(path, before)
    assert version == FileVersion.of(path.stat())
    assert found == (token,)


def test_file_made_accessible_to_others_later_is_refused(path: Path) -> None:
    create(path, "alice")
    os.utime(path, (time.time() - 60,) * 2)
    known = load_if_changed(path)
    path.chmod(0o644)
    with pytest.raises(BadTokenFile):
        load_if_changed(path, known)


def test_no_check_leaks_a_descriptor(path: Path) -> None:
    written(path, b"bad")
    before = descriptors()
    for _ in range(5):
        with pytest.raises(BadTokenFile):
            load_if_changed(path)
    assert descriptors() == before


millis = st.integers(0, 4_000_000_000_000).map(lambda value: value / 1000)
any_token: st.SearchStrategy[Token] = st.builds(
    Token,
    id=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    owner=st.text(min_size=1, max_size=256).filter(str.isprintable),
    scopes=st.frozensets(st.sampled_from(SCOPES)),
    digest=st.binary(min_size=32, max_size=32),
    created=millis,
    expires=st.none() | millis,
    revoked=st.none() | millis,
)


@given(st.lists(any_token, max_size=5, unique_by=(lambda token: token.id, lambda token: token.digest)))
def test_tokens_survive_serialization(some: list[Token]) -> None:
    assert parse_tokens(render_tokens(some)) == tuple(some)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(entry())), json_values)
def test_any_value_in_any_place_is_a_token_or_refused(key: str, value: object) -> None:
    try:
        found = parse_tokens(json.dumps(file_of(entry(**{key: value}))).encode())
    except BadTokens:
        return
    assert parse_tokens(render_tokens(found)) == tuple(replace(token) for token in found)


@given(st.binary(max_size=64))
def test_any_bytes_are_tokens_or_refused(data: bytes) -> None:
    try:
        parse_tokens(data)
    except BadTokens:
        return
    raise AssertionError(data)


def test_labels_that_cannot_be_opened_are_refused_by_name(path: Path) -> None:
    written(path, file_of(entry()))
    (path.parent / "token-labels.json").symlink_to("elsewhere")
    with pytest.raises(BadTokenFile, match=r"token-labels\.json: a symbolic link"):
        load(path)


def by_id(path: Path, token_id: str) -> Token:
    return next(token for token in load(path) if token.id == token_id)


def test_rotated_token_has_the_rights_and_label_of_the_old_one(path: Path) -> None:
    _, old = create(path, "alice", [ADMIN], label="render wall")
    secret, new, ended = rotate(path, old.id, None, 60)
    assert (new.owner, new.scopes, new.label, new.expires) == (
        "alice",
        frozenset({ADMIN}),
        "render wall",
        None,
    )
    assert ended == replace(old, expires=ended.expires)
    assert ended.expires == pytest.approx(time.time() + 60, abs=5)
    assert {token.id: token for token in load(path)} == {old.id: ended, new.id: new}
    assert token_file.digest_of(secret) == new.digest != old.digest


def test_token_can_be_rotated_by_its_secret(path: Path) -> None:
    secret, old = create(path, "alice")
    assert rotate(path, secret, None, 60)[2].id == old.id


def test_rotated_token_lives_as_long_as_the_old_one_did_from_its_creation(path: Path) -> None:
    _, old = create(path, "alice", expires=time.time() + 90)
    new = rotate(path, old.id, None, 60)[1]
    assert new.expires == pytest.approx(time.time() + 90, abs=5)
    assert rotate(path, new.id, 30, 60)[1].expires == pytest.approx(time.time() + 30, abs=5)
    assert rotate(path, new.id, math.inf, 60)[1].expires is None


def test_overlap_never_extends_the_old_token(path: Path) -> None:
    _, old = create(path, "alice", expires=time.time() + 30)
    assert rotate(path, old.id, None, 60)[2].expires == old.expires


def test_without_an_overlap_the_old_token_is_revoked(path: Path) -> None:
    _, old = create(path, "alice")
    rotate(path, old.id, None, 0)
    assert by_id(path, old.id).revoked is not None


def test_only_a_live_token_can_be_rotated(path: Path) -> None:
    with pytest.raises(UnknownToken):
        rotate(path, "0" * 12, None, 60)
    _, old = create(path, "alice")
    with pytest.raises(UnknownToken):
        rotate(path, "0" * 12, None, 60)
    revoke(path, old.id)
    with pytest.raises(EndedToken, match="is revoked"):
        rotate(path, old.id, None, 60)
    assert len(load(path)) == 1


def test_tokens_in_a_secrets_directory_that_the_group_reads_stay_readable_by_the_group(
    tmp_path: Path,
) -> None:
    path = tmp_path / "secrets" / "tokens.json"
    path.parent.mkdir(mode=0o750)
    _, token = create(path, "alice", label="a", shared=True)
    rotate(path, token.id, None, 60, shared=True)
    revoke(path, token.id, shared=True)
    _, expired = create(path, "bob", expires=1, shared=True)
    assert [each.id for each in token_file.prune(path, shared=True)] == [expired.id]
    assert [each.label for each in load(path, shared=True)] == ["a", "a"]
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("token*")}
    assert modes == {"tokens.json": 0o640, "token-labels.json": 0o640}


def test_tokens_of_a_replaced_kubernetes_secret_are_loaded(path: Path, tmp_path: Path) -> None:
    secret = KubernetesSecret(tmp_path / "secret")
    shared = secret.folder / "tokens.json"
    create(path, "alice", label="first")

    def files() -> dict[str, bytes]:
        return {name: (path.parent / name).read_bytes() for name in ("tokens.json", "token-labels.json")}

    secret.replace(files())
    state = load_if_changed(shared, shared=True)
    create(path, "bob", label="second")
    secret.replace(files())
    state = load_if_changed(shared, state, shared=True)
    assert [(token.owner, token.label) for token in state.tokens] == [("alice", "first"), ("bob", "second")]


def test_file_without_tokens_is_created_in_a_secrets_directory_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    assert token_file.create_shared(path)
    assert load(path, shared=True) == ()
    create(path, "alice", shared=True)
    assert not token_file.create_shared(path)
    assert len(load(path, shared=True)) == 1
