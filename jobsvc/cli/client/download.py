"""jobsvc download: the files of a completed job, resumable and verified."""

from __future__ import annotations

import sys
import time
from typing import Any, BinaryIO, Final, NamedTuple

import click

from jobsvc.cli.client.download_result import JSON, JSON_LINES, TEXT, result_document, result_line
from jobsvc.cli.client.exit_codes import ClientFailure
from jobsvc.cli.client.interruption import CONTINUED, NOT_CONTINUED, interruptible
from jobsvc.cli.client.parameters import Duration, JobId, examples, with_client
from jobsvc.cli.client.progress.display import Display, open_display
from jobsvc.cli.client.progress.summary import Summary
from jobsvc.cli.client.wait import wait_until_completed
from jobsvc.client import Client, FileExists
from jobsvc.client.models import Downloaded, Exists

_STANDARD_OUTPUT: Final = "-"
_SHORT_DIGEST: Final = 16
"""Digits of a digest on a terminal: all 64 would take another line."""


class _Options(NamedTuple):
    """The parameters of the command."""

    job_id: str
    to: str | None
    output: tuple[str, ...]
    archive: str | None
    parallel: int
    verify: bool
    exists: Exists
    wait: bool
    timeout: int | None
    form: str
    quiet: bool


@click.command(
    epilog=examples(
        "jobsvc download opening-title-0042",
        "jobsvc download opening-title-0042 --wait --timeout 2h -o film/",
        "jobsvc download star-turn-0420 --output star --skip",
        "jobsvc download star-turn-0420 --archive tar -o - | tar x",
    )
)
@click.argument("job_id", metavar="ID", type=JobId("completed"))
@click.option(
    "-o",
    "--to",
    metavar="PATH",
    help="File or directory to write to; `-` is standard output. Without it a single file is written into "
    "the current directory, several files into a directory named after the job.",
)
@click.option("--output", metavar="NAME", multiple=True, help="Only this output of the job; repeatable.")
@click.option("--archive", type=click.Choice(["tar", "zip"]), help="One archive instead of the files.")
@click.option(
    "-x",
    "--parallel",
    metavar="N",
    type=click.IntRange(1, 16),
    default=4,
    show_default=True,
    help="Connections at the same time.",
)
@click.option(
    "--verify/--no-verify", default=True, help="Compare the SHA-256 with that of the service (default)."
)
@click.option("--skip", "exists", flag_value="skip", help="Leave files that exist as they are.")
@click.option("--overwrite", "exists", flag_value="overwrite", help="Replace files that exist.")
@click.option("--rename", "exists", flag_value="rename", help="Write to a new name if a file exists.")
@click.option("--wait", is_flag=True, help="Wait first until the job is completed.")
@click.option(
    "--timeout", metavar="DURATION", type=Duration(), help="Wait no longer than this: 90s, 30m, 2h."
)
@click.option(
    "--format",
    "form",
    type=click.Choice([TEXT, JSON, JSON_LINES]),
    default=TEXT,
    show_default=True,
    help="Form of the result: the path of each file, or JSON.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@with_client
def download(client: Client, /, **options: Any) -> None:  # noqa: ANN401 - click checks them
    """Download the files of a completed job, and verify them.

    An interrupted download is continued by the same command. Exit code 0 means that every file is complete
    and that its SHA-256 is that of the service.
    """
    options["exists"] = options["exists"] or "error"
    _run(client, _Options(**options))


def _run(client: Client, options: _Options) -> None:
    _check(options)
    to_stdout = options.to == _STANDARD_OUTPUT
    message = NOT_CONTINUED if to_stdout else CONTINUED
    with interruptible(message), open_display(quiet=options.quiet) as display:
        if options.wait:
            wait_until_completed(client, display, options.job_id, timeout=options.timeout)
        if to_stdout:
            _write_to_stdout(client, display, options)
        else:
            _write_files(client, display, options)


def _check(options: _Options) -> None:
    """Raise UsageError for options that contradict each other."""
    if options.timeout is not None and not options.wait:
        raise click.UsageError("--timeout is the time that --wait waits: add --wait.")
    if options.to != _STANDARD_OUTPUT:
        return
    if sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal: redirect it to a file or a program.")
    if options.exists != "error" or options.form != TEXT:
        raise click.UsageError("With `-o -` there is no --skip, --overwrite, --rename or --format.")


def _write_files(client: Client, display: Display, options: _Options) -> None:
    target = options.to if options.to is not None else _default_target(client, options)
    started = time.monotonic()
    files = _download(client, display, options, target)
    for file in files if options.form != JSON else ():
        display.result(result_line(file, options.form))
    if options.form == JSON:
        display.result(result_document(files))
    display.final(_summary(files, options, started))


def _write_to_stdout(client: Client, display: Display, options: _Options) -> None:
    started = time.monotonic()
    files = _download(client, display, options, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    display.final(_summary(files, options, started))


def _download(client: Client, display: Display, options: _Options, to: str | BinaryIO) -> list[Downloaded]:
    try:
        return client.download(
            options.job_id,
            to,
            output=options.output or None,
            archive=options.archive,
            parallel=options.parallel,
            verify=options.verify,
            exists=options.exists,
            progress=display.update,
        )
    except FileExists as exc:
        text = str(exc).removesuffix(".")
        raise ClientFailure(f"{text} (--skip, --overwrite, --rename, -o).") from exc


def _summary(files: list[Downloaded], options: _Options, started: float) -> str:
    length = _SHORT_DIGEST if sys.stderr.isatty() else None
    summary = Summary(verify=options.verify, digest_length=length)
    for file in files:
        summary.add(file)
    return summary.text(time.monotonic() - started)


def _default_target(client: Client, options: _Options) -> str:
    """Return the current directory for a single file, and one named after the job for several."""
    outputs = client.job(options.job_id).outputs
    chosen = [output for output in outputs if not options.output or output.name in options.output]
    if options.archive or [output.kind for output in chosen] == ["file"]:
        return "./"
    return f"{options.job_id}/"
