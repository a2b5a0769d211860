"""jobsvc farm: write a job from the hooks of a render manager or from a shell script.

Each command reads the record, changes it and writes it, while it holds the lock of the job.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from io import BufferedReader
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, cast

import click

from jobsvc.cli.client.parameters import examples
from jobsvc.cli.render.job_options import job_errors, job_options, jobs_root_option
from jobsvc.domain.outputs import Role
from jobsvc.domain.status_schema import SCHEMA_TEXT
from jobsvc.farm import HEARTBEAT_S, Job

P = ParamSpec("P")

_MAX_LINE: Final = 64 * 1024
"""Bytes after which a line is written although it has not ended."""


def _job_command(call: Callable[Concatenate[Job, P], None]) -> Callable[..., None]:
    """Give a command the option --jobs-root and the argument ID, and call it with the job."""

    @jobs_root_option
    @click.argument("job_id", metavar="ID")
    @wraps(call)
    def command(jobs_root: Path, job_id: str, *args: P.args, **options: P.kwargs) -> None:
        with job_errors():
            call(Job.open(jobs_root, job_id), *args, **options)

    return command


@click.group(
    epilog=examples(
        "export JOBSVC_JOBS_ROOT=/srv/farm/jobs",
        "jobsvc farm create --owner acme --id title-0042 --output output/title.mp4",
        "jobsvc farm progress title-0042 40 --phase beauty --frames 100/250",
        "render.sh 2>&1 | jobsvc farm log title-0042",
        "jobsvc farm complete title-0042",
        "jobsvc farm fail title-0042 'no licence for the renderer'",
    )
)
def farm() -> None:
    """Write the directory of a job, one command for each step.

    For hooks of a render manager and for shell scripts. `jobsvc run` does all of this around one command.
    """


@farm.command()
@job_options
def create(**values: Any) -> None:  # noqa: ANN401 - those of Job.create
    """Create a queued job, or queue the next attempt of a job, and print its id."""
    with job_errors():
        click.echo(Job.create(**values).id)


@farm.command()
@_job_command
@click.argument("percent", type=click.FloatRange(0, 100), required=False)
@click.option("--phase", metavar="TEXT", help="What is done now.")
@click.option("--frames", metavar="DONE[/TOTAL]", help="Frames that are rendered, of how many.")
def progress(job: Job, percent: float | None, phase: str | None, frames: str | None) -> None:
    """Set how far a job is: PERCENT, 0 to 100.

    Without a change, it tells that the job is still being rendered: do so at least every few minutes.
    """
    job.progress(percent, phase=phase, frames=_frames(frames))


@farm.command()
@_job_command
def log(job: Job) -> None:
    """Append the lines of standard input to the log of a job, as they come.

    Until the end of the input, the job does not become stalled.
    """
    threading.Thread(target=_keep_alive, args=[job], daemon=True).start()
    failure: OSError | None = None
    for lines in _lines(cast(BufferedReader, sys.stdin.buffer)):
        try:
            job.log(lines)
            failure = None
        except OSError as error:  # the job keeps the lines: a render does not end because storage fails
            if failure is None:
                click.echo(
                    f"jobsvc: the log can't be written, trying again with each line: {error}", err=True
                )
            failure = error
    if failure is not None:
        raise failure


@farm.command()
@_job_command
@click.argument("name")
@click.argument("path")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default="data",
    show_default=True,
    help="What it is for.",
)
@click.option("--frames", metavar="FIRST-LAST", help="Frames that a sequence has to have.")
def output(job: Job, name: str, path: str, role: str, frames: str | None) -> None:
    """Add an output to a job: NAME in URLs, and PATH in the job's directory."""
    job.add_output(name, path, role=role, frames=frames)


@farm.command()
@_job_command
def complete(job: Job) -> None:
    """End a job as completed, or as failed if an output is missing."""
    job.complete()


@farm.command(context_settings={"ignore_unknown_options": True})  # an error may begin with "-"
@_job_command
@click.argument("error")
def fail(job: Job, error: str) -> None:
    """End a job as failed: ERROR is one sentence for people."""
    job.fail(error)


@farm.command()
@_job_command
def cancel(job: Job) -> None:
    """End a job as canceled."""
    job.cancel()


@farm.command()
def schema() -> None:
    """Print the JSON Schema of status.json, for editors and for programs that write it."""
    click.echo(SCHEMA_TEXT, nl=False)


def _lines(file: BufferedReader) -> Iterator[str]:
    """Yield lines, as many at once as have come. A very long line is taken for several."""
    rest = b""
    while data := file.read1(_MAX_LINE):
        rest += data
        end = rest.rfind(b"\n") + 1
        if end == 0 and len(rest) < _MAX_LINE:
            continue
        end = end or len(rest)
        yield rest[:end].decode("utf-8", "replace")
        rest = rest[end:]
    if rest:
        yield rest.decode("utf-8", "replace")


def _keep_alive(job: Job) -> None:
    while True:
        time.sleep(HEARTBEAT_S)
        with suppress(OSError):  # job.log reports storage that fails
            job.keep_alive()


def _frames(text: str | None) -> tuple[int, int | None] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,15})(?:/([0-9]{1,15}))?", text, re.ASCII)
    if match is None:
        raise click.BadParameter(
            f"{text!r} is not DONE or DONE/TOTAL, such as 100/250", param_hint="--frames"
        )
    done, total = int(match[1]), None if match[2] is None else int(match[2])
    if total is not None and done > total:
        raise click.BadParameter(f"{text!r}: more frames are done than there are", param_hint="--frames")
    return done, total
