"""jobsvc jobs: list jobs as a table, as JSON or by their ids."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import click

from jobsvc.cli.client.output import (
    Column,
    age,
    detail_of,
    percent,
    write_json,
    write_json_array,
    write_table,
)
from jobsvc.cli.client.parameters import (
    STATUSES,
    PointInTime,
    examples,
    output_option,
    with_client,
)
from jobsvc.cli.client.terminal import is_terminal, one_line
from jobsvc.client import Client, Job

_TABLE_LIMIT: Final = 100
"""Jobs of a table, without --limit."""


@click.command(
    epilog=examples(
        "jobsvc jobs",
        "jobsvc jobs --status failed --since 2d",
        "jobsvc jobs --status completed -o id | xargs -n 1 jobsvc download",
    )
)
@click.option(
    "--status", "statuses", metavar="STATUS", type=click.Choice(STATUSES), multiple=True,
    help=f"Only jobs in this state: {', '.join(STATUSES)}; repeatable.",
)  # fmt: skip
@click.option(
    "--since", metavar="TIME", type=PointInTime(),
    help="Only jobs that changed since this time (RFC 3339), since this date, or in the last 2h, 3d.",
)  # fmt: skip
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1),
    help=f"Maximum number of jobs.  [table: {_TABLE_LIMIT}; otherwise all]",
)  # fmt: skip
@output_option("table", "json", "jsonl", "id")
@with_client
def jobs(
    client: Client, /, statuses: tuple[str, ...], since: datetime | None, limit: int | None, form: str
) -> None:
    """List jobs, newest first.

    `-o json` and `-o jsonl` write the members that docs/api.md names, `-o id` writes only the ids.
    """
    if form == "table":
        _write_job_table(client, statuses, since, limit)
        return
    found = client.jobs(status=statuses, updated_since=since, limit=limit)
    _write_jobs(found, form)


def _write_jobs(found: Iterable[Job], form: str) -> None:
    if form == "json":
        write_json_array(job.document for job in found)
        return
    for job in found:
        if form == "jsonl":
            write_json(job.document)
        else:
            click.echo(one_line(job.id))


def _write_job_table(
    client: Client, statuses: tuple[str, ...], since: datetime | None, limit: int | None
) -> None:
    # One more than is shown, to know whether there are more.
    wanted = limit or _TABLE_LIMIT + 1
    found = list(client.jobs(status=statuses, updated_since=since, limit=wanted))
    shown = found if limit else found[:_TABLE_LIMIT]
    columns = (
        Column("ID"),
        Column("STATUS", is_status=True),
        Column("PROGRESS", is_number=True),
        Column("UPDATED"),
        Column("DETAIL", can_shrink=True),
    )
    if shown or not is_terminal(sys.stdout):
        write_table(
            columns, ([job.id, job.status, percent(job), _time(job), detail_of(job)] for job in shown)
        )
    if not found:
        click.echo("No jobs.", err=True)
    elif len(found) > len(shown):
        click.echo(f"These are the {_TABLE_LIMIT} newest jobs; --limit N shows more.", err=True)


def _time(job: Job) -> str:
    return age(job.updated_at) if is_terminal(sys.stdout) else str(job.document["updatedAt"])
