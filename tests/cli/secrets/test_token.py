from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli.secrets.token import token
from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state import private_file
from jobsvc.storage.state.token_file import digest_of, load
from jobsvc.storage.state.token_format import render_tokens
from jobsvc.storage.state.token_use_file import record_use
from tests.programs.external_programs import without_coverage
from tests.storage.state.secrets_folders import KubernetesSecret


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(token, [str(argument) for argument in arguments], env=environment)


def created(state: Path, *arguments: object) -> Result:
    result = run("create", "--owner", "alice", "--state-dir", state, *arguments)
    assert result.exit_code == 0, result.output
    return result


def test_create_prints_only_the_token_on_standard_output(state: Path) -> None:
    result = created(state)
    (kept,) = load(state / "tokens.json")
    assert digest_of(result.stdout.removesuffix("\n")) == kept.digest
    assert result.stdout.count("\n") == 1
    assert kept.id in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_new_token_reads_jobs_and_outputs_of_its_owner_and_does_not_expire(state: Path) -> None:
    created(state)
    (kept,) = load(state / "tokens.json")
    assert kept.owner == "alice"
    assert kept.scopes == {JOBS_READ, OUTPUTS_READ}
    assert kept.expires is None


def test_scopes_are_exactly_the_given_ones(state: Path) -> None:
    created(state, "--scope", "admin")
    created(state, "--scope", "jobs:read", "--scope", "outputs:read")
    assert [each.scopes for each in load(state / "tokens.json")] == [{ADMIN}, {JOBS_READ, OUTPUTS_READ}]


@pytest.mark.parametrize(
    ("life", "seconds"), [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), ("5s", 5), ("2w", 1_209_600)]
)
def test_token_expires_as_given(state: Path, life: str, seconds: float) -> None:
    created(state, "--expires", life)
    (kept,) = load(state / "tokens.json")
    assert kept.expires == pytest.approx(time.time() + seconds, abs=30)


def test_never_does_not_expire(state: Path) -> None:
    created(state, "--expires", "never")
    assert load(state / "tokens.json")[0].expires is None


@pytest.mark.parametrize("life", ["", "0d", "d", "90", "90 d", "-1d", "1y", "٣d", "99999999999d", "x" * 9999])
def test_invalid_expiry_is_wrong_usage_and_creates_nothing(state: Path, life: str) -> None:
    result = run("create", "--owner", "alice", "--state-dir", state, "--expires", life)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert not state.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--owner", ""],
        ["--owner", "a\nb"],
        ["--owner", "alice", "--scope", "jobs:write"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_creates_nothing(state: Path, arguments: list[str]) -> None:
    assert run("create", "--state-dir", state, *arguments).exit_code == 2
    assert load(state / "tokens.json") == ()


def test_list_has_every_token_and_its_state(state: Path) -> None:
    created(state)
    created(state, "--expires", "1s")
    created(state)
    live, expired, revoked = load(state / "tokens.json")
    run("revoke", revoked.id, "--state-dir", state)
    deadline = time.monotonic() + 5
    while expired.alive(time.time()):
        assert time.monotonic() < deadline
    result = run("list", "--state-dir", state)
    assert result.exit_code == 0
    head, *rows = [line.split() for line in result.stdout.splitlines()]
    assert head == ["ID", "OWNER", "SCOPES", "CREATED", "EXPIRES", "LAST-USED", "STATE", "LABEL"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        (live.id, "alice", "live"),
        (expired.id, "alice", "expired"),
        (revoked.id, "alice", "revoked"),
    ]
    assert rows[0][2:5:2] == ["jobs:read,outputs:read", "never"]


def test_list_as_json_is_one_object_per_line(state: Path) -> None:
    created(state, "--expires", "1d")
    created(state)
    lines = run("list", "--json", "--state-dir", state).stdout.splitlines()
    first, second = [json.loads(line) for line in lines]
    assert set(first) == {
        "id",
        "owner",
        "scopes",
        "created",
        "expires",
        "revoked",
        "state",
        "label",
        "lastUsed",
    }
    assert first["scopes"] == ["jobs:read", "outputs:read"]
    assert second["expires"] is second["revoked"] is None
    made = datetime.fromisoformat(first["created"])
    assert (datetime.fromisoformat(first["expires"]) - made).total_seconds() == pytest.approx(86_400, abs=1)


def test_list_shows_neither_token_nor_digest(state: Path) -> None:
    secret = created(state).stdout.strip()
    for form in ("--json", None):
        shown = run("list", "--state-dir", state, *filter(None, [form])).output
        assert secret not in shown
        assert digest_of(secret).hex() not in shown


def test_empty_list_is_only_a_header(state: Path) -> None:
    head = "ID  OWNER  SCOPES  CREATED  EXPIRES  LAST-USED  STATE  LABEL\n"
    assert run("list", "--state-dir", state).stdout == head
    assert run("list", "--state-dir", state, "--json").stdout == ""


def test_revoke_invalidates_a_token(state: Path) -> None:
    created(state)
    (kept,) = load(state / "tokens.json")
    result = run("revoke", kept.id, "--state-dir", state)
    assert result.exit_code == 0
    assert load(state / "tokens.json")[0].revoked is not None


def test_revoking_an_unknown_token_is_exit_code_1(state: Path) -> None:
    assert run("revoke", "0123456789ab", "--state-dir", state).exit_code == 1
    created(state)
    assert run("revoke", "0123456789ab", "--state-dir", state).exit_code == 1


def test_unknown_token_is_not_printed(state: Path) -> None:
    created(state)
    secret = "jsvc_" + "A" * 43
    result = run("revoke", secret, "--state-dir", state)
    assert result.exit_code == 1
    assert secret not in result.output
    assert f"No token in {state}/tokens.json" in result.output


@pytest.mark.parametrize("by", ["argument", "standard input"])
def test_token_is_revoked_by_its_secret_which_is_not_printed(state: Path, by: str) -> None:
    secret = created(state).stdout.strip()
    name, text = (secret, None) if by == "argument" else ("-", f"{secret}\n")
    result = CliRunner().invoke(token, ["revoke", name, "--state-dir", str(state)], input=text)
    assert result.exit_code == 0
    assert secret not in result.output
    assert load(state / "tokens.json")[0].revoked is not None


def test_id_is_read_from_standard_input(state: Path) -> None:
    created(state)
    (kept,) = load(state / "tokens.json")
    words = ["revoke", "-", "--state-dir", str(state)]
    assert CliRunner().invoke(token, words, input=kept.id).exit_code == 0
    assert CliRunner().invoke(token, words, input="").exit_code == 1


def test_list_shows_labels_and_the_last_use(state: Path) -> None:
    created(state, "--label", "Portal, Träume")
    created(state)
    used, unused = load(state / "tokens.json")
    (state / "token-use.json").write_text(json.dumps({used.id: "2026-11-29T12:00:00Z"}))
    (state / "token-use.json").chmod(0o600)
    rows = run("list", "--state-dir", state).stdout.splitlines()
    assert re.search(r"12:00:00.000Z  live   Portal, Träume$", rows[1])
    assert re.search(r"  -  +live$", rows[2])
    first, second = map(json.loads, run("list", "--json", "--state-dir", state).stdout.splitlines())
    assert (first["id"], first["label"], first["lastUsed"]) == (
        used.id,
        "Portal, Träume",
        "2026-11-29T12:00:00.000Z",
    )
    assert (second["id"], second["label"], second["lastUsed"]) == (unused.id, None, None)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a": 1}', b'{"a": "now"}', b""])
def test_invalid_file_of_last_uses_hides_no_token(state: Path, content: bytes) -> None:
    created(state)
    (state / "token-use.json").write_bytes(content)
    (state / "token-use.json").chmod(0o600)
    result = run("list", "--state-dir", state)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


def test_unprintable_label_is_wrong_usage(state: Path) -> None:
    result = run("create", "--owner", "alice", "--label", "a\nb", "--state-dir", state)
    assert result.exit_code == 2
    assert "--label" in result.stderr
    assert not state.exists()


def test_prune_removes_expired_tokens_and_prints_their_ids(state: Path) -> None:
    created(state)
    created(state, "--expires", "1s")
    live, expired = load(state / "tokens.json")
    deadline = time.monotonic() + 5
    while expired.alive(time.time()):
        assert time.monotonic() < deadline
    result = run("prune", "--state-dir", state)
    assert (result.exit_code, result.stdout) == (0, f"{expired.id}\n")
    assert result.stderr == "1 expired token removed.\n"
    assert load(state / "tokens.json") == (live,)


def test_state_directory_of_a_config_file_is_used_as_by_serve(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "jobsvc.toml"
    config.write_text('state-dir = "state"\nport = 9000\n')
    assert run("create", "--owner", "alice", "--config", config).exit_code == 0
    assert run("create", "--owner", "bob", JOBSVC_CONFIG=str(config)).exit_code == 0
    assert [each.owner for each in load(state / "tokens.json")] == ["alice", "bob"]
    assert run("create", "--owner", "alice", "--config", config, "--state-dir", tmp_path / "b").exit_code == 0
    assert len(load(tmp_path / "b" / "tokens.json")) == 1
    config.write_text('state_dirr = "state"\n')
    result = run("list", "--config", config)
    assert result.exit_code == 2
    assert "did you mean state-dir?" in result.stderr


@pytest.mark.parametrize(
    ("fault", "code"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EROFS, 2), (errno.EACCES, 2)]
)
def test_error_of_the_state_directory_is_explained(
    state: Path, monkeypatch: pytest.MonkeyPatch, fault: int, code: int
) -> None:
    created(state)

    def refuse(*_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(private_file, "write_atomically", refuse)
    result = run("create", "--owner", "alice", "--state-dir", state)
    assert (result.exit_code, result.stdout) == (code, "")
    assert f"{state}: {errno.errorcode[fault]} ({os.strerror(fault)})" in result.stderr
    assert ";" in result.stderr, "the message has no remedy"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_state_directory_of_another_user_is_reported_with_the_user() -> None:
    program = "import os; from jobsvc.cli.secrets.token import token; os.setuid(65534); token()"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        state = Path(folder) / "state"
        created(state)
        words = ["create", "--owner", "alice", "--state-dir", str(state)]
        command = [sys.executable, "-c", program, *words]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False, env=without_coverage()
        )
    assert result.returncode == 2
    expected = "EACCES (Permission denied); run this command as root, the owner of the state directory"
    assert result.stderr == f"Error: {state}: {expected}\n"


@pytest.mark.parametrize("command", [["create", "--owner", "alice"], ["list"], ["revoke", "0123456789ab"]])
def test_unusable_token_file_is_exit_code_2_and_named(state: Path, command: list[str]) -> None:
    state.mkdir()
    (state / "tokens.json").write_bytes(b"{half")
    (state / "tokens.json").chmod(0o600)
    result = run(*command, "--state-dir", state)
    assert result.exit_code == 2
    assert "tokens.json: not JSON" in result.stderr
    assert result.stdout == ""


def test_state_directory_that_cannot_be_created_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = run("create", "--owner", "alice", "--state-dir", tmp_path / "file" / "state")
    assert result.exit_code == 2
    assert "Not a directory" in result.stderr


def test_state_directory_defaults_to_the_environment(state: Path) -> None:
    assert run("create", "--owner", "alice", JOBSVC_STATE_DIR=str(state)).exit_code == 0
    assert len(load(state / "tokens.json")) == 1


def test_state_directory_is_required_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.delenv("JOBSVC_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    result = run("list")
    assert result.exit_code == 2
    assert "--state-dir" in result.stderr


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_without_locks_is_reported_with_a_remedy(
    state: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(fcntl, "flock", refuse)
    result = run("create", "--owner", "alice", "--state-dir", state)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "put the state directory on a file system that supports flock" in result.stderr
    assert load(state / "tokens.json") == ()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_owner_and_label_is_shown_in_any_locale(
    jobsvc: Callable[..., subprocess.CompletedProcess[str]], state: Path, encoding: str
) -> None:
    created(state, "--label", "夜")
    shown = jobsvc("token", "list", "--state-dir", str(state), PYTHONIOENCODING=encoding)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.rstrip().endswith("\\u591c" if encoding == "latin-1" else "夜")


def test_rotate_prints_only_the_new_token_on_standard_output(state: Path) -> None:
    first = created(state, "--label", "wall").stdout.strip()
    (old,) = load(state / "tokens.json")
    result = run("rotate", old.id, "--state-dir", state, "--overlap", "12h")
    assert result.exit_code == 0, result.output
    _, new = load(state / "tokens.json")
    assert digest_of(result.stdout.removesuffix("\n")) == new.digest
    assert (new.owner, new.label) == ("alice", "wall")
    assert f"Token {new.id} of alice, valid until it is revoked, is in {state}/tokens.json." in result.stderr
    assert re.search(rf"The old token {old.id} is valid until 20\S+Z\.", result.stderr)
    assert first not in result.output


def test_rotate_with_overlap_0_revokes_the_old_token(state: Path) -> None:
    secret = created(state).stdout.strip()
    result = CliRunner().invoke(
        token,
        ["rotate", "-", "--overlap", "0", "--expires", "never", "--state-dir", str(state)],
        input=secret,
    )
    old, new = load(state / "tokens.json")
    assert old.revoked is not None
    assert new.expires is None
    assert f"The old token {old.id} is revoked." in result.stderr


def test_rotate_of_an_ended_or_unknown_token_creates_none(state: Path) -> None:
    secret = created(state, "--expires", "1s").stdout.strip()
    (old,) = load(state / "tokens.json")
    run("revoke", old.id, "--state-dir", state)
    for name, reason in ((old.id, "The token is revoked; create another"), (f"{secret}x", "No token in")):
        result = run("rotate", name, "--state-dir", state)
        assert (result.exit_code, result.stdout) == (1, "")
        assert reason in result.stderr
        assert secret not in result.output
    assert len(load(state / "tokens.json")) == 1


@pytest.mark.parametrize("overlap", ["never", "-1h", "0h", "1"])
def test_invalid_overlap_is_wrong_use(overlap: str, state: Path) -> None:
    created(state)
    (old,) = load(state / "tokens.json")
    assert run("rotate", old.id, "--state-dir", state, "--overlap", overlap).exit_code == 2
    assert load(state / "tokens.json") == (old,)


def test_tokens_are_in_the_secrets_directory_and_their_use_in_the_state_directory(
    state: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    state.mkdir()
    config = tmp_path / "jobsvc.toml"
    config.write_text('state-dir = "state"\nsecrets-dir = "secrets"\n')
    result = run("create", "--owner", "alice", "--config", config)
    assert f"is in {folder}/tokens.json." in result.stderr
    (kept,) = load(folder / "tokens.json", shared=True)
    record_use(state / "token-use.json", {kept.id: 1e9}, [kept.id])
    listed = run("list", "--json", JOBSVC_SECRETS_DIR=str(folder), JOBSVC_STATE_DIR=str(state))
    assert json.loads(listed.stdout)["lastUsed"] == "2001-09-09T01:46:40.000Z"
    revoked = run("revoke", kept.id, "--secrets-dir", folder)
    assert revoked.stderr == f"Token {kept.id} of alice is revoked in {folder}/tokens.json.\n"
    assert run("prune", "--secrets-dir", folder).stderr == "0 expired tokens removed.\n"
    assert not (state / "tokens.json").exists()


def test_mounted_secret_is_not_changed(tmp_path: Path) -> None:
    secret = KubernetesSecret(tmp_path / "secret")
    secret.replace({"tokens.json": render_tokens([])})
    result = run("create", "--owner", "alice", "--secrets-dir", secret.folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {secret.folder}/tokens.json: EROFS (a symbolic link, so the file is managed elsewhere);"
        " change the secret where it is made, or name a copy that can be written as --secrets-dir\n"
    )
