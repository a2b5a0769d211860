from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobsvc.cli.client.logs import harmless
from tests.cli.client.conftest import RunClient, service_with, start_client, variables
from tests.cli.client.pseudo_terminal import run_on_terminal
from tests.conftest import MakeJob, job_maker, put
from tests.programs.service_runner import PROJECT, Process

LOG = b"Fra:1\r\nfirst\n\x1b[31mred\x1b[0m\x1b[2J\n\xff\xfe not UTF-8\n" + "許可\n".encode() + b"no line feed"


def write_jobs(make_job: MakeJob) -> None:
    make_job("done", output=b"film", log=LOG)
    make_job("large", status="failed", log=b"".join(b"line %d\n" % number for number in range(50_000)))
    make_job("silent", status="failed")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with service_with(tmp_path_factory.mktemp("service"), write_jobs, "--poll-interval", "0.2") as running:
        yield running


@pytest.fixture
def make_job(service: Process) -> MakeJob:
    """Write a job of the running service."""
    return job_maker(service.state_dir.parent / "jobs")


def test_log_is_printed_byte_for_byte(run: RunClient) -> None:
    result = run("logs", "done")
    assert (result.stdout_bytes, result.stderr, result.exit_code) == (LOG, "", 0)


def test_large_log_is_complete(run: RunClient) -> None:
    lines = run("logs", "large").stdout_bytes.splitlines()
    assert (len(lines), lines[-1]) == (50_000, b"line 49999")


def test_last_lines_are_selected(run: RunClient) -> None:
    assert run("logs", "large", "-n", "2").stdout == "line 49998\nline 49999\n"
    assert run("logs", "large", "-n", "0").stdout == ""


def test_more_lines_than_the_service_sends_are_wrong_use(run: RunClient) -> None:
    assert run("logs", "large", "-n", "10001").exit_code == 2


def test_missing_log_is_not_found(run: RunClient) -> None:
    result = run("logs", "silent")
    assert result.exit_code == 6
    assert result.stderr.startswith("jobsvc: The job has no log")


def test_unknown_job_is_not_found(run: RunClient) -> None:
    assert run("logs", "nothing").exit_code == 6


def test_followed_log_arrives_as_it_is_written(service: Process, make_job: MakeJob) -> None:
    folder = make_job("growing", status="rendering", log=b"first\n")
    client = start_client(service, "logs", "growing", "-f")
    assert client.stdout is not None
    assert client.stdout.readline() == "first\n"
    with (folder / "render.log").open("ab") as log:
        log.write(b"second\n")
    assert client.stdout.readline() == "second\n"
    make_job("growing", output=b"film")
    assert client.communicate(timeout=30) == ("", "")
    assert client.returncode == 0


def test_replaced_log_is_said_on_standard_error(service: Process, make_job: MakeJob) -> None:
    folder = make_job("again", status="rendering", log=b"first attempt\n")
    client = start_client(service, "logs", "again", "-f")
    assert client.stdout is not None
    assert client.stderr is not None
    assert client.stdout.readline() == "first attempt\n"
    put(folder / "render.log", b"second attempt\n")
    assert client.stderr.readline() == "jobsvc: The log was replaced; the new one follows.\n"
    assert client.stdout.readline() == "second attempt\n"
    make_job("again", output=b"film")
    assert client.communicate(timeout=30) == ("", "")


def test_closed_standard_output_is_an_error(service: Process) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m jobsvc logs done >&-"],
        cwd=PROJECT,
        env={**os.environ, **variables(service)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "jobsvc: Standard output is closed.\n")


def test_terminal_gets_colours_but_no_other_control_sequences(service: Process) -> None:
    with run_on_terminal(service, "logs", "done") as terminal:
        assert terminal.wait() == 0
    assert b"\x1b[31mred\x1b[0m\\x1b[2J\r\n" in terminal.received
    assert terminal.received.endswith(b"no line feed")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;38:2:1:2:3mx\x1b[m\t\r\n", "\x1b[1;38:2:1:2:3mx\x1b[m\t\r\n"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[3", "\\x1b[3"),
        ("\x9b31m\x08\u202e", "\\x9b31m\\x08\\u202e"),
    ],
)
def test_only_colours_are_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown
