"""Define the exit codes of client commands, and turn errors into one line on standard error and a code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from types import MappingProxyType
from typing import IO, Any, Final, TextIO

import click

from jobsvc.cli.client.terminal import one_line
from jobsvc.client import errors


class ExitCode(IntEnum):
    """Exit codes of client commands."""

    DONE = 0
    ERROR = 1
    """Any error without a code of its own."""
    USAGE = 2
    """Wrong use, or no URL or token."""
    JOB_FAILED = 3
    NOT_AUTHORIZED = 4
    JOB_CANCELED = 5
    NOT_FOUND = 6
    NOT_VERIFIED = 7
    """The received bytes are wrong, or could not be verified."""
    TIMEOUT = 124
    """The same as of timeout(1)."""
    INTERRUPTED = 130
    """The same as of a program that SIGINT ended."""


_BY_CLASS: Final[tuple[tuple[type[errors.JobsvcError], ExitCode], ...]] = (
    (errors.Unauthorized, ExitCode.NOT_AUTHORIZED),
    (errors.JobNotFound, ExitCode.NOT_FOUND),
    (errors.OutputMissing, ExitCode.NOT_FOUND),
    (errors.Corrupt, ExitCode.NOT_VERIFIED),
    (errors.WaitTimeout, ExitCode.TIMEOUT),
    (errors.Stopped, ExitCode.INTERRUPTED),
    (errors.BadConfiguration, ExitCode.USAGE),
)
_BY_PROBLEM_CODE: Final[Mapping[str, ExitCode]] = MappingProxyType(
    {"job-failed": ExitCode.JOB_FAILED, "job-canceled": ExitCode.JOB_CANCELED}
)

_REMEDY_BY_PROBLEM_CODE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unauthorized": "Sign in with `jobsvc login`, or set JOBSVC_TOKEN.",
        "insufficient-scope": "`jobsvc whoami` shows the scopes of the token; use one that has this scope.",
        "job-not-found": "`jobsvc jobs` lists those that are.",
        "output-missing": "`jobsvc status ID` lists the outputs.",
        "file-missing": "`jobsvc status ID` lists the outputs.",
        "job-not-completed": "`jobsvc wait ID` or `jobsvc download --wait ID` waits for it.",
        "job-failed": "`jobsvc logs ID` shows why.",
        "output-replaced": "Run the command again for the current version.",
        "not-found": "Check the URL of the service (--url, JOBSVC_URL or `jobsvc login`).",
    }
)
_REMEDY_BY_CLASS: Final[tuple[tuple[type[errors.JobsvcError], str], ...]] = (
    (errors.Unauthorized, "Sign in with `jobsvc login`, or set JOBSVC_TOKEN."),
    (errors.RateLimited, "Try again later."),
    (errors.ServiceUnavailable, "Try again later."),
    (errors.UnexpectedResponse, "Check the URL (--url, JOBSVC_URL or `jobsvc login`)."),
    (errors.ConnectionFailed, "Check the URL (--url, JOBSVC_URL or `jobsvc login`) and the network."),
)


class ClientFailure(click.ClickException):
    """Ends a client command with one line on standard error."""

    def __init__(self, message: str, code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line `jobsvc: <message>`."""
        del file
        with suppress(OSError):  # without standard error, the exit code remains
            complain(self.message)
        _flush_or_discard(sys.stderr)


def complain(message: str) -> None:
    """Write one line to standard error: `jobsvc: <message>`, with control characters escaped."""
    click.echo(f"jobsvc: {one_line(message)}", err=True)


def exit_code_of(exc: errors.JobsvcError) -> ExitCode:
    """Return the exit code of an error of the client."""
    if isinstance(exc, errors.Problem) and (code := _BY_PROBLEM_CODE.get(exc.code)):
        return code
    return next((code for kind, code in _BY_CLASS if isinstance(exc, kind)), ExitCode.ERROR)


def describe(exc: errors.JobsvcError) -> str:
    """Return what happened and what to do, and the request id if there is one."""
    text = str(exc)
    if text and text[-1] not in ".!?":  # the farm's error, for example
        text += "."
    parts = [text, _remedy(exc)]
    if isinstance(exc, errors.Problem) and exc.request_id:
        parts.append(f"(request {exc.request_id})")
    return " ".join(filter(None, parts))


def _remedy(exc: errors.JobsvcError) -> str:
    if isinstance(exc, errors.Problem):
        if remedy := _REMEDY_BY_PROBLEM_CODE.get(exc.code):
            return remedy
        if exc.retry_after is not None:
            return f"Try again in {exc.retry_after:.0f} s."
    return next((remedy for kind, remedy in _REMEDY_BY_CLASS if isinstance(exc, kind)), "")


@contextmanager
def client_errors() -> Iterator[None]:
    """Turn errors, Ctrl-C and a closed standard output into one line on standard error and an exit code."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # an error of the last bytes is an error of the command
    except errors.JobsvcError as exc:
        raise ClientFailure(describe(exc), exit_code_of(exc)) from exc
    except (KeyboardInterrupt, click.Abort) as exc:  # click.prompt raises Abort
        raise ClientFailure("Interrupted.", ExitCode.INTERRUPTED) from exc
    except OSError as exc:
        if _is_closed_pipe(exc):
            # The reader has what it wants, as in `jobsvc jobs | head`: no message.
            raise SystemExit(ExitCode.ERROR) from exc
        raise ClientFailure(_os_error(exc)) from exc
    finally:
        _flush_or_discard(sys.stdout)


def _is_closed_pipe(exc: OSError) -> bool:
    # Windows reports a closed pipe as EINVAL.
    return isinstance(exc, BrokenPipeError) or (sys.platform == "win32" and exc.errno == errno.EINVAL)


def _flush_or_discard(stream: TextIO | None) -> None:
    """Discard what a standard stream does not accept: at its end Python would write it again and fail."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _os_error(exc: OSError) -> str:
    name = f"{exc.filename}: " if exc.filename is not None else ""
    return f"{name}{exc.strerror or exc}."
