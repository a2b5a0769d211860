from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from jobsvc.cli.client.completion import complete_job_id
from jobsvc.client import Client, Job
from tests.cli.client.conftest import RunClient, service_with, variables
from tests.conftest import MakeJob
from tests.programs.service_runner import Process

JOBSVC = Path(sys.executable).with_name("jobsvc")


def write_jobs(make_job: MakeJob) -> None:
    make_job("shot-0100", status="rendering", createdAt="2026-01-02T00:00:00Z")
    make_job("shot-0110", output=b"film", createdAt="2026-01-01T00:00:00Z")
    make_job("title")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with service_with(tmp_path_factory.mktemp("service"), write_jobs) as running:
        yield running


@pytest.fixture
def patient_jobsvc(tmp_path: Path) -> Path:
    """The command, which waits for the service for long, because the machine may be busy."""
    program = tmp_path / "bin" / "jobsvc"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "from jobsvc.cli import main\n"
        "from jobsvc.cli.client import completion\n"
        "completion.ANSWER_TIMEOUT_S = 20.0\n"
        "main(prog_name='jobsvc')\n"
    )
    program.chmod(0o755)
    return program


def completed(
    service: Process, *words: str, program: Path | str = JOBSVC, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Complete the last word as bash does."""
    asked = {"_JOBSVC_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words)}
    return subprocess.run(
        [program],
        env={**os.environ, **variables(service), **asked, "COMP_CWORD": str(len(words) - 1), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed(run: RunClient, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_JOBSVC_COMPLETE={shell}_complete" in result.stdout


def test_script_for_another_shell_is_wrong_use(run: RunClient) -> None:
    assert run("completion", "csh").exit_code == 2


def test_job_ids_are_those_of_the_service(service: Process, patient_jobsvc: Path) -> None:
    done = completed(service, "jobsvc", "status", "shot", program=patient_jobsvc)
    assert (done.stdout, done.stderr) == ("plain,shot-0100\nplain,shot-0110\n", "")


def test_commands_and_options_of_the_service_are_completed(service: Process) -> None:
    assert "plain,systemd-unit\n" in completed(service, "jobsvc", "s").stdout
    assert completed(service, "jobsvc", "token", "cre").stdout == "plain,create\n"
    assert completed(service, "jobsvc", "serve", "--max-streams-").stdout == "plain,--max-streams-per-token\n"
    assert completed(service, "jobsvc", "config", "show", "--state-dir", "/var").stdout == "dir,/var\n"


def test_only_jobs_of_useful_states_are_completed(service: Process, patient_jobsvc: Path) -> None:
    for command, job_id in (("wait", "shot-0100"), ("link", "shot-0110")):
        done = completed(service, "jobsvc", command, "shot", program=patient_jobsvc)
        assert done.stdout == f"plain,{job_id}\n"


def test_options_of_the_connection_count(service: Process, patient_jobsvc: Path) -> None:
    words = ("jobsvc", "status", "--url", variables(service)["JOBSVC_URL"], "t")
    found = completed(service, *words, program=patient_jobsvc, JOBSVC_URL="")
    assert found.stdout == "plain,title\n"


def test_bash_completes_with_the_printed_script(
    service: Process, run: RunClient, tmp_path: Path, patient_jobsvc: Path
) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(run("completion", "bash").stdout)
    lines = (
        f". {script}; COMP_WORDS=(jobsvc status shot-01); COMP_CWORD=2;"
        " _jobsvc_completion jobsvc; echo ${COMPREPLY[@]}"
    )
    path = f"{patient_jobsvc.parent}:{os.environ['PATH']}"
    environment = {**os.environ, **variables(service), "PATH": path}
    done = subprocess.run(["bash", "-c", lines], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("shot-0100 shot-0110\n", "")


@pytest.mark.parametrize(
    "environment",
    [
        {"JOBSVC_TOKEN": "jsvc_wrong"},
        {"JOBSVC_URL": "http://127.0.0.1:1"},
        {"JOBSVC_URL": "nonsense"},
        {"JOBSVC_URL": "", "JOBSVC_TOKEN": ""},
    ],
)
def test_error_completes_nothing_and_prints_nothing(service: Process, environment: dict[str, str]) -> None:
    done = completed(service, "jobsvc", "status", "s", **environment)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)


@contextmanager
def slow_service() -> Iterator[str]:
    """Respond with a byte now and then, and never completely."""
    done = Event()

    def respond() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not done.wait(0.2):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=respond, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()


def test_service_that_responds_slowly_holds_up_the_shell_for_a_short_time(service: Process) -> None:
    started_at = time.monotonic()
    with slow_service() as url:
        done = completed(service, "jobsvc", "status", "s", JOBSVC_URL=url)
    assert time.monotonic() - started_at < 10
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_commands_are_completed_without_importing_the_service(service: Process) -> None:
    done = completed(service, "jobsvc", "", PYTHONPROFILEIMPORTTIME="1")
    assert "plain,jobs" in done.stdout.splitlines()
    assert "plain,serve" in done.stdout.splitlines()
    assert "jobsvc.settings" not in done.stderr
    assert "jobsvc.cli.client" not in done.stderr


def test_state_of_a_job_adds_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """zsh and fish show it beside the id, and read the completions line by line."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job("shot", "x\nplain\nother\n\x1b[2J", 0.0, moment, moment, None, {})
    monkeypatch.setattr(Client, "jobs", lambda *_, **__: iter([job]))
    monkeypatch.setenv("JOBSVC_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("JOBSVC_TOKEN", "token")
    (item,) = complete_job_id({}, "sh", ())
    assert item.help == "x plain other \\x1b[2J"


def test_commands_of_link_and_options_of_a_created_link_are_completed(
    service: Process, patient_jobsvc: Path
) -> None:
    assert completed(service, "jobsvc", "link", "re").stdout == "plain,revoke\n"
    assert completed(service, "jobsvc", "link", "--arch").stdout == "plain,--archive\n"
    assert completed(service, "jobsvc", "link", "shot-0110", "--arch").stdout == "plain,--archive\n"
    done = completed(service, "jobsvc", "link", "create", "shot", program=patient_jobsvc)
    assert done.stdout == "plain,shot-0110\n"
