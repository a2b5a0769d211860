from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.domain.job import Status
from jobsvc.settings import OPTIONS, Settings, directories
from jobsvc.storage.state import link_key
from jobsvc.storage.state.token_file import create
from tests.programs.external_programs import needs
from tests.programs.redis_server import redis_server


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """Record the settings that the service is started with; stands in for the service and returns an exit
    code.
    """
    taken: list[Settings] = []

    def run(settings: Settings, *, reread: Callable[[], Settings]) -> int:
        assert reread() == settings
        taken.append(settings)
        return 1

    service = ModuleType("jobsvc.service")
    service.run = run  # type: ignore[attr-defined]  # a module made by hand
    monkeypatch.setitem(sys.modules, "jobsvc.service", service)
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return taken


def serve(*words: str | Path, **variables: str) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, words)], env=variables)


def test_exit_code_is_that_of_the_service(started: list[Settings], tmp_path: Path) -> None:
    assert serve(tmp_path / "..", "--state-dir", tmp_path.parent).exit_code == 2
    (tmp_path / "jobs").mkdir()
    assert serve(tmp_path / "jobs").exit_code == 1
    assert started == [Settings(tmp_path / "jobs")]


def test_flag_precedes_environment_and_environment_precedes_config_file(
    started: list[Settings], tmp_path: Path
) -> None:
    (tmp_path / "jobs").mkdir()
    config = tmp_path / "jobsvc.toml"
    config.write_text('port = 1\nmax-age = 2\nhost = "file"\njobs-root = "jobs"\n')
    result = serve(
        "--port", "3", JOBSVC_CONFIG=str(config), JOBSVC_PORT="4", JOBSVC_MAX_AGE="5", JOBSVC_HOST=""
    )
    assert result.output == ""
    assert (started[0].port, started[0].max_age, started[0].host) == (3, 5, "file")
    assert (started[0].jobs_root, started[0].config) == (tmp_path / "jobs", config)


def test_several_values_come_from_repeated_flags_or_one_variable(
    started: list[Settings], tmp_path: Path
) -> None:
    for name in ("jobs", "out one", "two"):
        (tmp_path / name).mkdir()
    serve(tmp_path / "jobs", "--output-root", tmp_path / "out one", "--output-root", tmp_path / "two")
    serve(
        JOBSVC_JOBS_ROOT=str(tmp_path / "jobs"),
        JOBSVC_OUTPUT_ROOT=f"{tmp_path}/out one:{tmp_path}/two",
        JOBSVC_TRUSTED_PROXY="10.0.0.0/8, ::1",
        JOBSVC_STATUS_ALIAS="paused=queued held=queued",
    )
    flags, variables = started
    assert flags.output_roots == variables.output_roots == (tmp_path / "out one", tmp_path / "two")
    assert [str(network) for network in variables.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert variables.status_aliases["paused"] is variables.status_aliases["held"] is Status.QUEUED


@pytest.mark.parametrize(
    ("words", "variables", "origin"),
    [
        (("--max-age", "soon"), {}, "the flag --max-age"),
        ((), {"JOBSVC_MAX_AGE": "soon"}, "the environment variable JOBSVC_MAX_AGE"),
    ],
)
def test_invalid_value_is_a_one_line_error_with_its_origin(
    words: tuple[str, ...], variables: dict[str, str], origin: str, started: list[Settings], tmp_path: Path
) -> None:
    result = serve(tmp_path, *words, **variables)
    assert result.exit_code == 2
    expected = f"Error: max-age: 'soon' is not a number of seconds from 0 to 31536000 (from {origin})\n"
    assert result.output == expected
    assert started == []


def test_service_port_of_an_orchestrator_is_not_the_option(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    config = tmp_path / "jobsvc.toml"
    config.write_text("port = 9000\n")
    links = {"JOBSVC_PORT": "tcp://10.0.0.1:8080", "JOBSVC_SERVICE_HOST": "10.0.0.1"}
    result = serve(tmp_path / "jobs", **links)
    assert (result.output, started[-1].port) == ("", 8080)
    serve(tmp_path / "jobs", "--config", config, **links)
    assert started[-1].port == 9000
    assert "port: 'udp://x y'" in serve(tmp_path / "jobs", JOBSVC_PORT="udp://x y").output


def test_check_config_changes_nothing(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    state = tmp_path / "made" / "state"
    words = (tmp_path / "jobs", "--state-dir", state, "--port", "9000", "--check-config")
    result = serve(*words, JOBSVC_MAXAGE="2")
    unknown = "the environment variable JOBSVC_MAXAGE is unknown and has no effect"
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"Warning: {unknown}; did you mean JOBSVC_MAX_AGE?",
        "The configuration is valid.",
        f"jobs root: {tmp_path / 'jobs'}",
        f"state directory: {state}, 0 valid tokens",
        "address: 127.0.0.1, port 9000",
        (
            "budgets: status 600/minute, list 120/minute, events 60/minute, logs 120/minute,"
            " download 60/minute, files 1200/minute, auth-failures 20/minute"
        ),
        "at once, per token: 16 of 256 downloads, 64 of 4096 streams",
    ]
    assert not state.parent.exists()
    assert started == []
    create(state / "tokens.json", "anna")
    assert "1 valid tokens" in serve(*words).output


def test_check_config_warns_if_redis_does_not_respond(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"redis://:secret@127.0.0.1:{bound.getsockname()[1]}/0"
        result = serve(tmp_path / "jobs", "--check-config", "--shared-state", url)
    assert result.exit_code == 0
    assert f"shared state: {url.replace('secret', '***')}, prefix jobsvc\n" in result.stdout
    assert "Warning: the shared state cannot be used now: " in result.stderr
    assert "secret" not in result.output


def test_check_config_refuses_an_option_that_redis_py_does_not_have(
    started: list[Settings], tmp_path: Path
) -> None:
    (tmp_path / "jobs").mkdir()
    result = serve(tmp_path / "jobs", "--check-config", "--shared-state", "redis://:secret@127.0.0.1?ssl=1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: the URL of --shared-state has invalid options: ")
    assert "secret" not in result.stderr


@needs("redis-server")
def test_check_config_reports_redis_that_responds(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    with redis_server(tmp_path) as redis:
        result = serve(tmp_path / "jobs", "--check-config", "--shared-state", redis.url)
    assert f"shared state: {redis.url}, prefix jobsvc\n" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tokens.json", b"{", "tokens.json: not JSON"),
        ("token-labels.json", b"{", "token-labels.json: not JSON"),
        ("link.key", b"", "link.key: not 32 bytes in hex"),
    ],
)
def test_check_config_finds_an_invalid_file_in_the_state_directory(
    started: list[Settings], tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / "jobs").mkdir()
    create(tmp_path / "state" / "tokens.json", "anna")
    (tmp_path / "state" / name).write_bytes(content)
    (tmp_path / "state" / name).chmod(0o600)
    result = serve(tmp_path / "jobs", "--state-dir", tmp_path / "state", "--check-config")
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {tmp_path}/state/{expected}")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("{tmp}/missing",), 1, "jobs-root: "),
        (("{tmp}", "--port", "x"), 2, "port: 'x'"),
        (("{tmp}/jobs", "--state-dir", "{tmp}/jobs/state"), 2, "is inside the jobs root"),
        (("{tmp}/jobs", "--state-dir", "/etc/hostname/state"), 2, "ENOTDIR"),
    ],
)
def test_check_config_finds_what_prevents_the_start(
    started: list[Settings], tmp_path: Path, words: tuple[str, ...], code: int, expected: str
) -> None:
    (tmp_path / "jobs").mkdir()
    result = serve(*(word.format(tmp=tmp_path) for word in words), "--check-config")
    assert result.exit_code == code
    assert expected in result.output
    assert started == []


def test_help_names_every_option_with_its_default(started: list[Settings]) -> None:
    result = " ".join(serve("--help").output.split())
    for option in OPTIONS:
        assert f"{option.flag} {option.spec.metavar if not option.spec.argument else ''}".strip() in result
        assert not option.default or f"[{option.default}]" in result
    assert started == []


def test_invalid_usage_is_exit_code_2_without_a_stack_trace(
    jobsvc: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    result = jobsvc("serve", str(tmp_path), "--port", "nonsense")
    assert result.returncode == 2
    assert result.stdout == ""
    expected = "Error: port: 'nonsense' is not an integer from 0 to 65535 (from the flag --port)\n"
    assert result.stderr == expected


def test_missing_jobs_root_is_exit_code_1_and_a_file_is_2(
    jobsvc: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for root, code, expected in ((tmp_path / "later", 1, "ENOENT"), (file, 2, "ENOTDIR")):
        result = jobsvc("serve", str(root), "--port", "0")
        assert (result.returncode, result.stdout) == (code, "")
        assert f"jobs-root: '{root}' is not a readable directory: {expected} (" in result.stderr


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (errno.EIO, 1),
        (errno.ESTALE, 1),
        (errno.EHOSTDOWN, 1),
        (errno.EACCES, 2),
        (errno.EROFS, 2),
    ],
)
def test_temporary_error_of_the_state_directory_is_exit_code_1(
    started: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, code: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    result = serve(tmp_path, "--state-dir", tmp_path.parent / "state")
    assert result.exit_code == code
    assert f"cannot be created or written: {errno.errorcode[fault]} (" in result.output
    assert started == []


def test_unresponsive_jobs_root_is_exit_code_1(
    started: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(_folder: Path) -> None:
        release.wait()
        raise OSError

    monkeypatch.setattr(directories, "ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(os, "scandir", hang)
    try:
        result = serve(tmp_path, "--state-dir", tmp_path.parent / "state")
    finally:
        release.set()
    assert result.exit_code == 1
    assert "ETIMEDOUT (no response within 0.1 s)" in result.output


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT])
def test_full_state_directory_does_not_prevent_the_start(
    started: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    result = serve(tmp_path, "--state-dir", tmp_path.parent / "state")
    assert (result.output, len(started)) == ("", 1)


def test_check_config_reports_the_secrets_directory(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    words = (tmp_path / "jobs", "--secrets-dir", secrets, "--check-config", "--shared-state", "redis://host")
    result = serve(*words)
    assert result.exit_code == 2
    assert f"link.key: missing; run `jobsvc secrets create --secrets-dir {secrets}`" in result.output
    link_key.create_shared(secrets / "link.key")
    create(secrets / "tokens.json", "alice", shared=True)
    assert f"secrets directory: {secrets}, 1 valid tokens\n" in serve(*words).output
    for name in ("shared-state-password", "revoked-links.json"):
        (secrets / name).touch(mode=0o600)
        result = serve(*words)
        assert result.exit_code == 2
        assert f"{secrets}/{name}: not " in result.output
        (secrets / name).unlink()
    assert started == []
