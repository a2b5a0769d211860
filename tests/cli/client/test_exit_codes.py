from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from jobsvc.cli.client.exit_codes import ClientFailure, ExitCode, client_errors, describe, exit_code_of
from jobsvc.client import errors

ROOT = Path(__file__).parents[3]


def failing(exc: BaseException) -> Result:
    """Run a command that raises this."""

    @click.command
    def command() -> None:
        with client_errors():
            raise exc

    return CliRunner().invoke(command)


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (errors.Problem("bad-request", 400, "Invalid."), ExitCode.ERROR),
        (errors.Problem("not-found", 404, "No such route."), ExitCode.ERROR),
        (errors.Unauthorized("unauthorized", 401, "Unknown."), ExitCode.NOT_AUTHORIZED),
        (errors.Unauthorized("insufficient-scope", 403, "No."), ExitCode.NOT_AUTHORIZED),
        (errors.JobNotFound("job-not-found", 404, "No job."), ExitCode.NOT_FOUND),
        (errors.OutputMissing("log-missing", 404, "No log."), ExitCode.NOT_FOUND),
        (errors.NotReady("job-not-completed", 409, "Rendering."), ExitCode.ERROR),
        (errors.NotReady("job-failed", 409, "Failed."), ExitCode.JOB_FAILED),
        (errors.NotReady("job-canceled", 409, "Canceled."), ExitCode.JOB_CANCELED),
        (errors.OutputReplaced("output-replaced", 412, "Replaced."), ExitCode.ERROR),
        (errors.RateLimited("rate-limited", 429, "Too many."), ExitCode.ERROR),
        (errors.ServiceUnavailable("http-502", 502, "Bad gateway."), ExitCode.ERROR),
        (errors.ConnectionFailed("No connection."), ExitCode.ERROR),
        (errors.WaitTimeout("Not final."), ExitCode.TIMEOUT),
        (errors.DownloadError("No space."), ExitCode.ERROR),
        (errors.FileExists("It exists."), ExitCode.ERROR),
        (errors.Stopped("Stopped."), ExitCode.INTERRUPTED),
        (errors.Corrupt("Wrong bytes."), ExitCode.NOT_VERIFIED),
        (errors.NotVerified("No digest."), ExitCode.NOT_VERIFIED),
        (errors.BadConfiguration("No URL."), ExitCode.USAGE),
    ],
)
def test_each_error_has_its_exit_code(exc: errors.JobsvcError, code: ExitCode) -> None:
    assert exit_code_of(exc) is code


def test_error_is_one_line_with_the_remedy_and_the_request_id() -> None:
    result = failing(errors.JobNotFound("job-not-found", 404, "No such\njob.", request_id="r-1"))
    assert result.exit_code == ExitCode.NOT_FOUND
    assert result.stderr == "jobsvc: No such job. `jobsvc jobs` lists those that are. (request r-1)\n"
    assert result.stdout == ""


def test_limit_names_the_time_of_the_next_attempt() -> None:
    exc = errors.RateLimited("rate-limited", 429, "Too many requests.", retry_after=12.0)
    assert describe(exc) == "Too many requests. Try again in 12 s."


def test_error_of_the_farm_and_remedy_are_two_sentences() -> None:
    exc = errors.NotReady("job-failed", 409, "The job failed: no licence")
    assert describe(exc) == "The job failed: no licence. `jobsvc logs ID` shows why."


def test_escape_sequences_of_the_service_are_escaped() -> None:
    result = failing(errors.Problem("x", 400, "\x1b]0;title\x07 \x9b31m \u202e"))
    assert result.stderr == "jobsvc: \\x1b]0;title\\x07 \\x9b31m \\u202e.\n"


def test_interrupt_has_the_exit_code_of_sigint() -> None:
    result = failing(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "jobsvc: Interrupted.\n")


def test_closed_pipe_ends_the_command_without_a_message() -> None:
    result = failing(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.output) == (1, "")


def test_file_error_names_the_file() -> None:
    result = failing(PermissionError(errno.EACCES, "Permission denied", "/x/y"))
    assert (result.exit_code, result.stderr) == (1, "jobsvc: /x/y: Permission denied.\n")


def test_other_exceptions_are_not_hidden() -> None:
    assert isinstance(failing(ZeroDivisionError()).exception, ZeroDivisionError)


def test_failure_of_a_command_has_its_own_exit_code() -> None:
    result = failing(ClientFailure("Job a failed.", ExitCode.JOB_FAILED))
    assert (result.exit_code, result.stderr) == (3, "jobsvc: Job a failed.\n")


def run(program: str, words: str) -> subprocess.CompletedProcess[str]:
    code = f"""if True:
        import click, sys
        from jobsvc.cli.client.exit_codes import client_errors
        @click.command
        def command():
            with client_errors():
                {program}
        command()
    """
    command = f'"{sys.executable}" -c "$0" {words}'
    return subprocess.run(
        ["sh", "-c", command, code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )


def test_full_disk_below_standard_output_is_reported() -> None:
    done = run("click.echo('x')", "> /dev/full")
    assert (done.returncode, done.stderr) == (1, "jobsvc: No space left on device.\n")


def test_failure_keeps_its_exit_code_while_the_disk_is_full() -> None:
    done = run("sys.stdout.write('x'); raise KeyboardInterrupt", "> /dev/full")
    assert (done.returncode, done.stderr) == (130, "jobsvc: Interrupted.\n")


def test_reader_that_closes_the_pipe_gets_no_traceback() -> None:
    done = run("[click.echo('x' * 100000) for _ in range(100)]", "| head -c 1; exit")
    assert (done.stdout, done.stderr) == ("x", "")


def test_failure_keeps_its_exit_code_while_standard_error_is_closed() -> None:
    assert run("raise KeyboardInterrupt", "2> /dev/full").returncode == 130
    assert run("raise KeyboardInterrupt", "2>&-").returncode == 130
