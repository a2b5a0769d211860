"""jobsvc check: list every job that cannot be served, and report the properties of the storage.

It reads jobs as the service does. It writes nothing, except with --probe-write, in a new directory.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import orjson

from jobsvc.cli.check_user import CheckUser
from jobsvc.cli.job_advice import REASONS
from jobsvc.cli.job_check import Finding, Survey
from jobsvc.cli.output_check import Contents
from jobsvc.cli.settings_options import (
    InvalidSetting,
    TemporaryFault,
    configured_values,
    setting_errors,
    settings_options,
    warn_of_unknown_variables,
)
from jobsvc.domain.job import SYNONYMS
from jobsvc.settings import NO_JOBS_ROOT, resolve
from jobsvc.settings.options import STALLED_AFTER_S
from jobsvc.storage.files.os_errors import describe, is_temporary
from jobsvc.storage.filesystem.probe import FileSystemInfo, WriteProbe, file_system_info, run_write_probe
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import find_job_directories

PROGRESS_STEPS: Final = 200
"""Number of updates of the progress bar."""
MAX_CLOCK_OFFSET_S: Final = 0.1
"""Maximum difference of two clocks, in seconds, that is reported as none."""
MAX_NAMED_JOBS: Final = 20
"""Maximum number of job ids in one line."""
_ERASE: Final = "\r\x1b[K"


@click.command
@settings_options("jobs-root", "state-dir", "output-root", "status-alias", "stalled-after", "config")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines, the summary last.")
@click.option(
    "--probe-write",
    is_flag=True,
    help="Test the storage by writing in a temporary directory below JOBS_ROOT.",
)
@click.pass_context
def check(ctx: click.Context, /, *, as_json: bool, probe_write: bool, **_: object) -> None:
    """Check all jobs, and report on the storage.

    JOBS_ROOT is the directory that contains the job directories.
    Records, outputs of completed jobs and logs are opened as the service opens them. A job with several files
    has a line with their number and size. Run the command as the
    service's user, because access can differ for other users. The state directory is only used to find out
    which user that is.

    Advice for the farm names keys that records should have, too. Exit code 1: a job has an error, or
    --probe-write found that a rename is not atomic. Stalled jobs and advice alone are not an error.
    """
    warn_of_unknown_variables()
    survey, user = _survey(ctx)
    root = survey.root
    try:
        ids, ignored = find_job_directories(root.path)
    except OSError as error:
        message = f"jobs-root: {str(root.path)!r} cannot be listed: {describe(error)}"
        raise (TemporaryFault if is_temporary(error) else InvalidSetting)(message) from error
    for result in _results(survey, sorted(ids)):
        click.echo(orjson.dumps(result) if as_json else _text(result))
    jobs, ignored = len(ids) - len(survey.nested), ignored + len(survey.nested)
    info, probe = file_system_info(root.path), _run_probe(root.path) if probe_write else None
    if as_json:
        click.echo(orjson.dumps({**_document(jobs, ignored, survey, info, probe), **user.document()}))
    else:
        click.echo(f"{jobs} jobs, {survey.found} with a finding; {ignored} other names ignored")
        notes = (*_notes(survey, jobs), *user.notes())
        for line in (*_storage_lines(survey, info), *_probe_lines(probe), *notes):
            click.echo(line)
    ctx.exit(1 if survey.found or (isinstance(probe, WriteProbe) and probe.torn_reads) else 0)


def _survey(ctx: click.Context) -> tuple[Survey, CheckUser]:
    with setting_errors():
        values = resolve(configured_values(ctx))
    path: Path | None = values.get("jobs_root")
    if path is None:
        raise InvalidSetting(NO_JOBS_ROOT)
    root = JobsRoot(path, values.get("output_roots", ()), values.get("status_aliases", SYNONYMS))
    survey = Survey(root, stalled_after=values.get("stalled_after", STALLED_AFTER_S))
    return survey, CheckUser.of(values.get("state_dir"))


def _results(survey: Survey, ids: list[str]) -> Iterator[Finding | Contents]:
    """Yield what is found of all jobs; on a terminal, show a progress bar and erase it before each line."""
    shown = sys.stderr.isatty()
    with click.progressbar(
        ids, label="Checking", file=sys.stderr, show_pos=True, hidden=not shown,
        update_min_steps=max(1, len(ids) // PROGRESS_STEPS),
    ) as bar:  # fmt: skip
        for job_id in bar:
            results: list[Finding | Contents] = [*survey.examine(job_id)]
            if survey.contents is not None:
                results.append(survey.contents)
            for result in results:
                if shown:
                    click.echo(_ERASE, err=True, nl=False)
                yield result
    if shown:
        click.echo("\x1b[1A" + _ERASE, err=True, nl=False)


def _text(result: Finding | Contents) -> str:
    if isinstance(result, Finding):
        return f"{result.job}: {result.reason}"
    return f"{result.job}: {result.files} files, {result.bytes} bytes"


def _run_probe(root: Path) -> WriteProbe | str:
    """Run the write probe; return its result, or the reason why it failed."""
    try:
        with _exit_on_error():
            return run_write_probe(root)
    except OSError as error:
        return error.strerror or str(error)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that the probe's directory is removed."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _storage_lines(survey: Survey, info: FileSystemInfo) -> Iterator[str]:
    coverage = "every change" if info.events else "only changes of this machine, so jobs are polled"
    yield f"storage: {info.file_system}; inotify reports {coverage}"
    if info.events:
        yield f"watches: {survey.directories} directories to watch; the limit is {info.watches}"
    if survey.timestamp_granularity is not None:
        yield f"timestamps: granularity {_span(survey.timestamp_granularity)}"


def _notes(survey: Survey, jobs: int) -> Iterator[str]:
    """Yield lines about stalled jobs, what jobs lack and a wrong jobs root, which are not findings."""
    if survey.stalled:
        time, jobs_named = f"{survey.stalled_after:g} s", _some(survey.stalled)
        yield f"stalled: {len(survey.stalled)} unfinished jobs, not written for {time}: {jobs_named}"
    for key, ids in survey.advice.items():
        yield f"advice: {REASONS[key]}; write {key!r}: {_some(ids)}"
    if survey.nested and not jobs:
        question = "these directories contain jobs; is one of them the jobs root?"
        yield f"no jobs found, but {question} {_some(survey.nested)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED_JOBS} more" if len(names) > MAX_NAMED_JOBS else ""
    return f"{', '.join(names[:MAX_NAMED_JOBS])}{more}"


def _probe_lines(probe: WriteProbe | str | None) -> Iterator[str]:
    if isinstance(probe, str):
        yield f"write test failed: {probe}"
    elif probe is not None:
        yield f"write test: inotify {'reports' if probe.event else 'DOES NOT REPORT'} changes of this machine"
        step = (
            "do not advance" if probe.clock_step is None else f"advance in steps of {_span(probe.clock_step)}"
        )
        yield f"write test: timestamps {step}; the storage's clock is {_offset(probe.clock_offset)}"
        how = (
            "is atomic"
            if not probe.torn_reads
            else f"IS NOT ATOMIC: {probe.torn_reads} reads did not return a complete file"
        )
        yield f"write test: rename {how}, in {probe.reads} reads"


def _document(
    jobs: int, ignored: int, survey: Survey, info: FileSystemInfo, probe: WriteProbe | str | None
) -> dict[str, Any]:
    tried: dict[str, Any] | None = None
    if isinstance(probe, str):
        tried = {"error": probe}
    elif probe is not None:
        tried = {
            "eventSeen": probe.event,
            "clockStep": probe.clock_step,
            "clockAhead": probe.clock_offset,
            "renameAtomic": not probe.torn_reads,
            "looks": probe.reads,
        }
    storage = {
        "fileSystem": info.file_system,
        "events": info.events,
        "watches": info.watches,
        "directories": survey.directories,
        "timesKeptTo": survey.timestamp_granularity,
        "tried": tried,
    }
    return {
        "jobs": jobs,
        "findings": survey.found,
        "ignored": ignored,
        "stalled": survey.stalled,
        "advice": survey.advice,
        "storage": storage,
    }


def _offset(ahead: float) -> str:
    """Describe the offset of a clock from this machine's, in seconds."""
    if abs(ahead) < MAX_CLOCK_OFFSET_S:
        return "equal to this machine's"
    return f"{_span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine's"


def _span(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
