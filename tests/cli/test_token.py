from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli.token import token
from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from jobsvc.storage.tokens import digest_of, load


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(token, [str(argument) for argument in arguments], env=environment)


def created(state: Path, *arguments: object) -> Result:
    result = run("create", "--owner", "alice", "--state-dir", state, *arguments)
    assert result.exit_code == 0, result.output
    return result


def test_create_prints_the_token_alone_on_standard_output(state: Path) -> None:
    result = created(state)
    (kept,) = load(state / "tokens.json")
    assert digest_of(result.stdout.removesuffix("\n")) == kept.digest
    assert result.stdout.count("\n") == 1
    assert kept.id in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_a_new_token_reads_jobs_and_outputs_of_its_owner_and_does_not_expire(state: Path) -> None:
    created(state)
    (kept,) = load(state / "tokens.json")
    assert kept.owner == "alice"
    assert kept.scopes == {JOBS_READ, OUTPUTS_READ}
    assert kept.expires is None


def test_scopes_are_those_given_and_no_more(state: Path) -> None:
    created(state, "--scope", "admin")
    created(state, "--scope", "jobs:read", "--scope", "outputs:read")
    assert [each.scopes for each in load(state / "tokens.json")] == [{ADMIN}, {JOBS_READ, OUTPUTS_READ}]


@pytest.mark.parametrize(
    ("life", "seconds"), [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), ("5s", 5), ("2w", 1_209_600)]
)
def test_a_token_lives_as_long_as_it_is_told(state: Path, life: str, seconds: float) -> None:
    created(state, "--expires", life)
    (kept,) = load(state / "tokens.json")
    assert kept.expires == pytest.approx(time.time() + seconds, abs=30)


def test_never_is_no_end(state: Path) -> None:
    created(state, "--expires", "never")
    assert load(state / "tokens.json")[0].expires is None


@pytest.mark.parametrize("life", ["", "0d", "d", "90", "90 d", "-1d", "1y", "٣d", "99999999999d", "x" * 9999])
def test_a_life_that_is_none_is_wrong_use_and_makes_nothing(state: Path, life: str) -> None:
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
def test_wrong_use_is_2_and_makes_nothing(state: Path, arguments: list[str]) -> None:
    assert run("create", "--state-dir", state, *arguments).exit_code == 2
    assert load(state / "tokens.json") == ()


def test_list_names_every_token_and_its_state(state: Path) -> None:
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
    assert head == ["ID", "OWNER", "SCOPES", "CREATED", "EXPIRES", "STATE"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        (live.id, "alice", "live"),
        (expired.id, "alice", "expired"),
        (revoked.id, "alice", "revoked"),
    ]
    assert rows[0][2:5:2] == ["jobs:read,outputs:read", "never"]


def test_list_as_json_is_one_object_a_line(state: Path) -> None:
    created(state, "--expires", "1d")
    created(state)
    lines = run("list", "--json", "--state-dir", state).stdout.splitlines()
    first, second = [json.loads(line) for line in lines]
    assert set(first) == {"id", "owner", "scopes", "created", "expires", "revoked", "state"}
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


def test_list_of_nothing_is_a_head_alone(state: Path) -> None:
    assert run("list", "--state-dir", state).stdout == "ID  OWNER  SCOPES  CREATED  EXPIRES  STATE\n"
    assert run("list", "--state-dir", state, "--json").stdout == ""


def test_revoke_ends_a_token(state: Path) -> None:
    created(state)
    (kept,) = load(state / "tokens.json")
    result = run("revoke", kept.id, "--state-dir", state)
    assert result.exit_code == 0
    assert load(state / "tokens.json")[0].revoked is not None


def test_revoking_what_is_unknown_is_1(state: Path) -> None:
    assert run("revoke", "0123456789ab", "--state-dir", state).exit_code == 1
    created(state)
    assert run("revoke", "0123456789ab", "--state-dir", state).exit_code == 1


def test_a_token_given_for_its_id_is_not_repeated(state: Path) -> None:
    secret = created(state).stdout.strip()
    result = run("revoke", secret, "--state-dir", state)
    assert result.exit_code == 1
    assert secret not in result.output


@pytest.mark.parametrize("command", [["create", "--owner", "alice"], ["list"], ["revoke", "0123456789ab"]])
def test_a_token_file_that_can_t_be_used_is_2_and_named(state: Path, command: list[str]) -> None:
    state.mkdir()
    (state / "tokens.json").write_bytes(b"{half")
    (state / "tokens.json").chmod(0o600)
    result = run(*command, "--state-dir", state)
    assert result.exit_code == 2
    assert "tokens.json: not JSON" in result.stderr
    assert result.stdout == ""


def test_a_state_directory_that_can_t_be_made_is_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = run("create", "--owner", "alice", "--state-dir", tmp_path / "file" / "state")
    assert result.exit_code == 2
    assert "Not a directory" in result.stderr


def test_the_state_directory_is_the_environment_s_unless_told(state: Path) -> None:
    assert run("create", "--owner", "alice", JOBSVC_STATE_DIR=str(state)).exit_code == 0
    assert len(load(state / "tokens.json")) == 1


def test_without_a_home_the_state_directory_has_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.delenv("JOBSVC_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    result = run("list")
    assert result.exit_code == 2
    assert "--state-dir" in result.stderr
