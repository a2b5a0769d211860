from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from jobsvc.cli.client import wait as wait_module
from jobsvc.cli.client.progress.lines import LineDisplay
from jobsvc.client import Job
from tests.cli.client.conftest import RunClient, service_with, start_client
from tests.cli.client.pseudo_terminal import run_on_terminal
from tests.conftest import MakeJob, job_maker
from tests.eventually import wait_until
from tests.programs.service_runner import Process


def write_jobs(make_job: MakeJob) -> None:
    make_job("done", output=b"film")
    make_job("failed", status="failed", error="No license\x1b[31m.")
    make_job("canceled", status="canceled")
    make_job("rendering", status="rendering", progress=42, phase="beauty")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with service_with(tmp_path_factory.mktemp("service"), write_jobs, "--poll-interval", "0.2") as running:
        yield running


@pytest.fixture
def make_job(service: Process) -> MakeJob:
    """Write a job of the running service."""
    return job_maker(service.state_dir.parent / "jobs")


def test_completed_job_is_success(run: RunClient) -> None:
    result = run("wait", "done")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "done  completed  100 %\n", "")


def test_failed_job_has_its_exit_code_and_its_error(run: RunClient) -> None:
    result = run("wait", "failed")
    assert (result.exit_code, result.stdout) == (3, "failed  failed  0 %\n")
    assert result.stderr == (
        "jobsvc: failed failed: No license\\x1b[31m. `jobsvc logs failed` shows its log.\n"
    )


def test_canceled_job_has_its_exit_code(run: RunClient) -> None:
    result = run("wait", "canceled")
    assert (result.exit_code, result.stderr) == (5, "jobsvc: canceled was canceled.\n")


def test_failed_job_takes_precedence_over_a_canceled_one(run: RunClient) -> None:
    result = run("wait", "done", "canceled", "failed")
    assert result.exit_code == 3
    assert sorted(result.stdout.splitlines()) == [
        "canceled  canceled  0 %",
        "done  completed  100 %",
        "failed  failed  0 %",
    ]
    assert len(result.stderr.splitlines()) == 2


def test_timeout_names_the_jobs_that_are_not_final(run: RunClient) -> None:
    result = run("wait", "done", "rendering", "--timeout", "3s")
    assert result.exit_code == 124
    assert result.stdout.splitlines() == ["done  completed  100 %", "rendering  rendering  42 %"]
    assert "jobsvc: Not finished after 3 s: rendering (rendering, 42 %)" in result.stderr


def test_timeout_takes_precedence_over_a_failed_job(run: RunClient) -> None:
    result = run("wait", "failed", "rendering", "--timeout", "3s")
    assert result.exit_code == 124
    assert "jobsvc: failed failed: " in result.stderr


def test_unknown_job_is_not_found(run: RunClient) -> None:
    assert run("wait", "nothing").exit_code == 6
    assert run("wait", "done", "nothing").exit_code == 6


def test_wrong_token_ends_the_wait(run: RunClient) -> None:
    assert run("wait", "rendering", JOBSVC_TOKEN="jsvc_wrong").exit_code == 4  # noqa: S106 - not a password


def test_without_a_job_it_is_wrong_use(run: RunClient) -> None:
    assert run("wait").exit_code == 2


def test_any_ends_with_the_first_final_job(run: RunClient) -> None:
    result = run("wait", "--any", "rendering", "done", "-o", "id")
    assert (result.exit_code, result.stdout) == (0, "done\n")


def test_any_has_the_exit_code_of_the_final_job(run: RunClient) -> None:
    assert run("wait", "--any", "rendering", "failed").exit_code == 3


def test_json_has_the_jobs_in_the_order_of_the_arguments(run: RunClient) -> None:
    result = run("wait", "failed", "done", "failed", "-o", "json")
    assert [(job["id"], job["status"]) for job in json.loads(result.stdout)] == [
        ("failed", "failed"),
        ("done", "completed"),
    ]
    assert result.exit_code == 3


def test_json_lines_are_written_after_a_timeout_too(run: RunClient) -> None:
    result = run("wait", "rendering", "-o", "jsonl", "--timeout", "3s")
    assert json.loads(result.stdout)["progress"] == 42
    assert result.exit_code == 124


def test_each_change_is_one_plain_line_and_the_last_one_is_the_result(
    service: Process, make_job: MakeJob
) -> None:
    make_job("lines", status="queued")
    client = start_client(service, "wait", "lines")
    assert client.stderr is not None
    assert client.stderr.readline() == "lines  queued  0 %\n"
    make_job("lines", status="rendering", progress=12, phase="beauty\x1b[2J")
    assert client.stderr.readline() == "lines  rendering  12 %  beauty\\x1b[2J\n"
    make_job("lines", output=b"film")
    assert client.communicate(timeout=30) == ("lines  completed  100 %\n", "")
    assert client.returncode == 0


def test_percentages_alone_are_not_written_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(
        "jobsvc.cli.client.progress.lines.LineDisplay.final", lambda _, text: lines.append(text)
    )
    shown = wait_module._Report(LineDisplay(), 1, "text")
    now = datetime.now(UTC)
    base = Job("a", "rendering", 0.0, now, now, None, {})
    for percentage in range(50):
        shown.changed(base._replace(progress=float(percentage)))
    assert lines == ["a  rendering  0 %"]
    monkeypatch.setattr(wait_module, "LINE_INTERVAL_S", 0.0)
    shown.changed(base._replace(progress=50.0))
    assert lines[1:] == ["a  rendering  50 %"]


def test_progress_can_be_turned_off(run: RunClient) -> None:
    result = run("wait", "rendering", "-o", "id", "--timeout", "3s", JOBSVC_PROGRESS="never")
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)


def test_interrupt_ends_the_wait_with_its_exit_code(service: Process) -> None:
    client = start_client(service, "wait", "rendering")
    assert client.stderr is not None
    assert client.stderr.readline().startswith("rendering  rendering")
    client.send_signal(signal.SIGINT)
    assert client.communicate(timeout=30) == ("", "jobsvc: Interrupted.\n")
    assert client.returncode == 130


def test_live_line_of_a_terminal_moves(service: Process, make_job: MakeJob) -> None:
    make_job("live", status="rendering", progress=12)
    with run_on_terminal(service, "wait", "live") as terminal:
        wait_until(lambda: b"live  rendering  12 %" in terminal.received)
        make_job("live", status="rendering", progress=57, phase="denoise")
        wait_until(lambda: b"live  rendering  57 %  denoise" in terminal.received)
        make_job("live", output=b"film")
        assert terminal.wait() == 0
    lines = terminal.received.decode().split("\r\x1b[2K")
    assert any(line.startswith("0:0") and line.endswith("live  rendering  57 %  denoise") for line in lines)
    assert lines[-1] == "live  \x1b[32mcompleted\x1b[0m  100 %\r\n\x1b[?25h"


@pytest.mark.parametrize("words", [["wait", "done", "failed"], ["jobs"], ["status", "failed"], ["whoami"]])
def test_pipe_gets_no_escape_sequence(service: Process, words: list[str]) -> None:
    stdout, stderr = start_client(service, *words).communicate(timeout=30)
    assert stdout
    assert "\x1b" not in stdout + stderr
    assert "\r" not in stdout + stderr
