"""jobsvc logs: print or follow the log of a job."""

from __future__ import annotations

import re
import sys
from typing import Final

import click

from jobsvc.cli.client.exit_codes import ClientFailure, complain
from jobsvc.cli.client.parameters import JobId, examples, with_client
from jobsvc.cli.client.terminal import printable
from jobsvc.client import Client, LogLines

# Colours (SGR) and what moves the cursor within a line: on a terminal, a log may contain these and no more.
_HARMLESS: Final = re.compile("(\x1b\\[[0-9;:]{0,64}m|[\t\r\n])")


@click.command(epilog=examples("jobsvc logs opening-title-0042 -n 20", "jobsvc logs opening-title-0042 -f"))
@click.argument("job_id", metavar="ID", type=JobId())
@click.option("-f", "--follow", is_flag=True, help="Continue with new lines until the job is final.")
@click.option("-n", "--tail", metavar="N", type=click.IntRange(0, 10_000), help="Only the last N lines.")
@with_client
def logs(client: Client, /, job_id: str, *, follow: bool, tail: int | None) -> None:
    """Print the log of a job.

    Standard output has exactly the bytes of the log; on a terminal, control sequences other than colours are
    escaped. With -f the service sends text: line ends are LF, and bytes that are not UTF-8 are replaced. A
    message on standard error says so if the log was truncated or replaced.
    """
    if sys.stdout is None:
        raise ClientFailure("Standard output is closed.")
    escape = sys.stdout.isatty()
    stream = sys.stdout.buffer
    for part in client.log(job_id, tail=tail, follow=follow, errors="surrogateescape"):
        if isinstance(part, LogLines):
            text = harmless(part.text) if escape else part.text
            stream.write(text.encode("utf-8", "surrogateescape"))
            if follow:
                stream.flush()
        else:
            stream.flush()
            complain(f"The log was {part.reason}; the new one follows.")
    stream.flush()


def harmless(text: str) -> str:
    """Escape control sequences other than colours."""
    parts = _HARMLESS.split(text)
    return "".join(part if index % 2 else printable(part) for index, part in enumerate(parts))
