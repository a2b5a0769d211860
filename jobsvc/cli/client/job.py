"""jobsvc status and link: one job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import click

from jobsvc.cli.client.output import (
    Column,
    age,
    coloured,
    detail_of,
    json_text,
    percent,
    write_json,
    write_table,
)
from jobsvc.cli.client.parameters import Duration, JobId, examples, output_option, with_client
from jobsvc.cli.client.progress.units import format_size
from jobsvc.cli.client.terminal import is_terminal, one_line, printable
from jobsvc.client import Client, Job

_LOG_LINES: Final = 10
"""Lines of a failed job's log that are shown."""
_TIMES: Final = {
    "createdAt": "created",
    "startedAt": "started",
    "updatedAt": "updated",
    "estimatedCompletionAt": "estimated end",
    "completedAt": "completed",
}
_TEXTS: Final = {
    "sourceStatus": "farm's state",
    "owner": "owner",
    "projectPath": "project",
    "attempt": "attempt",
}


@click.command(
    epilog=examples(
        "jobsvc status opening-title-0042", "jobsvc status opening-title-0042 -o json | jq .progress"
    )
)
@click.argument("job_id", metavar="ID", type=JobId())
@output_option("text", "json")
@with_client
def status(client: Client, /, job_id: str, form: str) -> None:
    """Show the state of a job and its outputs.

    The exit code is 0 whatever the state; `jobsvc wait` has exit codes by state.
    """
    job = client.job(job_id)
    if form == "json":
        write_json(job.document, indent=2)
        return
    click.echo(f"{one_line(job.id)}  {coloured(job.status)}  {percent(job)}")
    lines = list(_lines(job))
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        click.echo(f"{label.ljust(width)}  {value}")
    _write_outputs(job)
    _write_log_end(job)


def _lines(job: Job) -> Iterator[tuple[str, str]]:
    """Yield labels and values, without those that the job does not have."""
    if detail := detail_of(job):
        yield ("error" if job.error else "doing"), detail
    for name, label in (_TIMES | _TEXTS).items():
        if (value := job.document.get(name)) is not None:
            ago = f" ({age(job.updated_at)})" if name == "updatedAt" and is_terminal(sys.stdout) else ""
            yield label, one_line(str(value)) + ago
    metadata = job.document.get("metadata")
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            yield one_line(name), one_line(value if isinstance(value, str) else json_text(value))


def _write_outputs(job: Job) -> None:
    if not job.outputs:
        return
    click.echo()
    columns = [
        Column(title, is_number=title == "SIZE") for title in ("OUTPUT", "ROLE", "KIND", "SIZE", "TYPE")
    ]
    write_table(
        columns,
        (
            [
                each.name,
                each.role,
                each.kind,
                "" if each.size is None else format_size(each.size),
                each.content_type or "",
            ]
            for each in job.outputs
        ),
    )


def _write_log_end(job: Job) -> None:
    lines = str(job.document.get("logs") or "").splitlines()
    if lines:
        click.echo("\nThe end of the log:")
    for line in lines[-_LOG_LINES:]:
        click.echo(f"  {printable(line)}")


@click.command(
    "create",
    epilog=examples(
        "jobsvc link opening-title-0042 --expires 1d",
        "jobsvc link shot-0100 --archive zip",
        "jobsvc link shot-0100 --file beauty/beauty.1001.exr",
    ),
)
@click.argument("job_id", metavar="ID", type=JobId("completed"))
@click.option(
    "--expires", "expires_in", metavar="DURATION", type=Duration(), default="1h", show_default=True,
    help="Time until the link expires; the service has a maximum.",
)  # fmt: skip
@click.option(
    "--file", metavar="OUTPUT[/PATH]", help="Link to a file of an output instead of the main output."
)
@click.option("--archive", type=click.Choice(["tar", "zip"]), help="Link to an archive of all files.")
@with_client
def create_link(
    client: Client, /, job_id: str, expires_in: int, file: str | None, archive: str | None
) -> None:
    """Create a URL that downloads without a token.

    Anyone with the URL can download the file until the link expires or the operator revokes it. The URL is
    written to standard output.
    """
    if file is not None and archive is not None:
        raise click.UsageError("--file and --archive cannot be used together.")
    created = client.link(job_id, expires_in=expires_in, file=file, archive=archive)
    click.echo(one_line(created.url))
    end = f"{created.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    click.echo(f"It is valid until {end}. Its id is {one_line(created.id)}.", err=True)
