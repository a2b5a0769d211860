"""jobsvc sync: copy the files of all completed jobs into a directory."""

from __future__ import annotations

import logging
import time
from typing import Any, Final, NamedTuple, Self

import click

from jobsvc.cli.client.download_result import JSON_LINES, TEXT, result_line
from jobsvc.cli.client.interruption import interruptible
from jobsvc.cli.client.parameters import STATUSES, examples, with_client
from jobsvc.cli.client.progress.display import Display, open_display
from jobsvc.cli.client.progress.summary import Summary
from jobsvc.client import Client, DownloadError, SyncFailed
from jobsvc.client.models import Progress

_LOG: Final = logging.getLogger("jobsvc.client")


class _Options(NamedTuple):
    """The parameters of the command."""

    directory: str
    status: tuple[str, ...]
    watch: bool
    name: str
    form: str
    quiet: bool


def _check_name(_: click.Context, param: click.Parameter, value: str) -> str:
    from jobsvc.client.download.sync.plan import NameTemplate  # noqa: PLC0415 - `--help` does without it

    try:
        NameTemplate(value)
    except DownloadError as exc:
        raise click.BadParameter(str(exc), param=param) from exc
    return value


@click.command(
    epilog=examples(
        "jobsvc sync /srv/films",
        "jobsvc sync /srv/films --watch",
        "jobsvc sync /srv/films --name '{id}/{output}/{path}' --format jsonl",
    )
)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option(
    "--status",
    type=click.Choice(STATUSES),
    multiple=True,
    default=("completed",),
    show_default=True,
    help="Only jobs in this state; repeatable.",
)
@click.option("--watch", is_flag=True, help="Go on with jobs that complete later, until Ctrl-C.")
@click.option(
    "--name",
    metavar="TEMPLATE",
    default="{id}/{path}",
    show_default=True,
    callback=_check_name,
    help="Path of each file below DIR, from {id}, {output} and {path}.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([TEXT, JSON_LINES]),
    default=TEXT,
    show_default=True,
    help="Form of the result: the path of each file, or a JSON object.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@with_client
def sync(client: Client, /, **options: Any) -> None:  # noqa: ANN401 - click checks them
    """Download the files of all completed jobs that the directory DIR lacks.

    Prints the path of each file that it downloads. The next run continues where this one stopped. With
    --watch it runs until Ctrl-C, and the exit code is then 130.
    """
    _run(client, _Options(**options))


class _Warnings(logging.Handler):
    """Shows what the client logs: jobs that could not be downloaded and are tried again."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        self._display.warn(record.getMessage())

    def __enter__(self) -> Self:
        _LOG.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LOG.removeHandler(self)


def _run(client: Client, options: _Options) -> None:
    started, summary = time.monotonic(), Summary()
    with interruptible(), open_display(quiet=options.quiet) as display, _Warnings(display):
        try:
            _download_all(client, options, display, summary)
        except SyncFailed:
            display.final(summary.text(time.monotonic() - started))
            raise
        display.final(summary.text(time.monotonic() - started))


def _download_all(client: Client, options: _Options, display: Display, summary: Summary) -> None:
    def show_progress(progress: Progress) -> None:
        display.update(progress)
        if progress.phase == "done":
            _show_search(display, watch=options.watch)

    files = client.sync(
        options.directory,
        status=options.status,
        name=options.name,
        follow=options.watch,
        progress=show_progress,
    )
    _show_search(display, watch=options.watch)
    for file in files:
        summary.add(file)
        if not file.skipped:
            display.result(result_line(file, options.form))
        _show_search(display, watch=options.watch)


def _show_search(display: Display, *, watch: bool) -> None:
    if watch:
        display.status("Waiting for jobs that complete. Ctrl-C ends.")
