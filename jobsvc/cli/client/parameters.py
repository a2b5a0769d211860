"""Options and types of parameters that client commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec

import click
from click.shell_completion import CompletionItem

from jobsvc.cli.client.exit_codes import client_errors
from jobsvc.client import Client

P = ParamSpec("P")

STATUSES: Final = ("queued", "rendering", "completed", "failed", "canceled")
UNFINISHED: Final = STATUSES[:2]

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw]?)", re.ASCII)
JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def examples(*lines: str) -> str:
    """Return the end of a help text: examples, one a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class Duration(click.ParamType[int]):
    """A duration such as 90s, 30m, 2h or 3d; a number alone is seconds. The value is in seconds."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return seconds."""
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value)
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a duration such as 90s, 30m, 2h or 3d.", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


class PointInTime(click.ParamType[datetime]):
    """A time: RFC 3339, a date or time without a zone in local time, or how long ago (2h, 3d)."""

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time with its time zone."""
        if isinstance(value, datetime):
            return value
        try:
            if match := _DURATION.fullmatch(value):
                return datetime.now(UTC) - timedelta(seconds=int(match[1]) * _SECONDS[match[2] or "?"])
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else time.astimezone()
        except (ValueError, KeyError, OverflowError, OSError):
            self.fail(
                f"{value!r} is not a time such as 2026-11-30T08:00:00Z, or how long ago: 2h, 3d.", param, ctx
            )


class JobId(click.ParamType[str]):
    """The id of a job. Shell completion requests those of the service, in some states only if told so."""

    name = "job id"

    def __init__(self, *statuses: str) -> None:
        self._statuses = statuses

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id. An id that no job can have is wrong use: mostly an empty shell variable."""
        if not JOB_ID.fullmatch(value):
            self.fail(f"{value!r} is not the id of a job.", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the ids that begin with `incomplete`; none if the service does not respond at once."""
        from jobsvc.cli.client.completion import complete_job_id  # noqa: PLC0415 - only shells need it

        del param
        return complete_job_id(ctx.params, incomplete, self._statuses)


def with_client(command: Callable[Concatenate[Client, P], None]) -> Callable[P, None]:
    """Give a command the options of the connection, and a Client that they lead to as its first argument.

    Errors of the client become one line on standard error and an exit code.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with client_errors(), Client(**_connection(kwargs)) as client:
            command(client, *args, **kwargs)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


def _connection(params: dict[str, Any]) -> dict[str, Any]:
    """Remove the options of the connection from a command's parameters, and return them for Client."""
    return {
        "url": params.pop("url"),
        "profile": params.pop("profile"),
        "ca_file": params.pop("ca_file"),
        "timeout": params.pop("idle_timeout"),
        "retries": params.pop("retries"),
    }


def output_option(*forms: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator that adds `-o`, with these forms; the first one is the default."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(forms), default=forms[0], show_default=True,
        help="Form of the result.",
    )  # fmt: skip


URL_OPTION: Final = click.option("--url", metavar="URL", help="URL of the service, instead of JOBSVC_URL.")
PROFILE_OPTION: Final = click.option(
    "--profile", metavar="NAME", help="Saved profile, instead of JOBSVC_PROFILE."
)
CA_OPTION: Final = click.option(
    "--ca-file", metavar="FILE", help="PEM file of certificates to trust instead of the system's."
)
_OPTIONS: Final = (
    URL_OPTION,
    PROFILE_OPTION,
    CA_OPTION,
    click.option(
        "--idle-timeout",
        metavar="DURATION",
        type=Duration(),
        default="30s",
        show_default=True,
        help="Time without a byte until a connection counts as dead.",
    ),
    click.option(
        "--retries",
        metavar="N",
        type=click.IntRange(min=0),
        default=5,
        show_default=True,
        help="Further attempts after a fault of the connection or the service.",
    ),
)
