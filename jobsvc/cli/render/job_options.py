"""What commands that write jobs share: options, and how errors are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from jobsvc.farm import JobError

F = TypeVar("F", bound=Callable[..., Any])


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object, such as {"shot": "op_0010"}."""

    name = "json"

    def convert(
        self, value: str | dict[str, Any], param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """Return the object."""
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail('not a JSON object such as {"shot": "op_0010"}', param, ctx)
        return found


jobs_root_option: Final = click.option(
    "--jobs-root",
    required=True,
    envvar="JOBSVC_JOBS_ROOT",
    show_envvar=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the jobs on the shared storage.",
)


_JOB_OPTIONS: Final = (
    jobs_root_option,
    click.option(
        "--owner",
        required=True,
        envvar="JOBSVC_OWNER",
        show_envvar=True,
        help="Who may see the job: tokens are created for an owner.",
    ),
    click.option("--id", "job_id", help="Id of the job, the name of its directory [default: a new UUID]"),
    click.option(
        "--output",
        metavar="PATH",
        help="Main output, in the job's directory: a file, a sequence (a.####.exr) or a directory (a/).",
    ),
    click.option("--project", metavar="TEXT", help="What is rendered, for people to read."),
    click.option("--metadata", type=JsonObject(), help="A JSON object that clients get as it is."),
    click.option("--keep-outputs", is_flag=True, help="Keep what an earlier attempt has rendered."),
    click.option("--restart", is_flag=True, help="Render a completed job again."),
)


def job_options(command: F) -> F:
    """Give a command the options whose values are the arguments of Job.create."""
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


@contextmanager
def job_errors() -> Iterator[None]:
    """Show what is wrong with a job, or with storage, in one line."""
    try:
        yield
    except (JobError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
