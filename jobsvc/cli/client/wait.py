"""jobsvc wait: wait for jobs, with an exit code that says how they ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Final, Self

import click

from jobsvc.cli.client.exit_codes import ClientFailure, ExitCode, complain
from jobsvc.cli.client.output import coloured, detail_of, percent, write_json, write_json_array
from jobsvc.cli.client.parameters import UNFINISHED, Duration, JobId, examples, output_option, with_client
from jobsvc.cli.client.progress.display import Display, open_display
from jobsvc.cli.client.progress.units import format_clock
from jobsvc.cli.client.terminal import ProgressForm, one_line, progress_form
from jobsvc.client import Client, Job, WaitTimeout

LINE_INTERVAL_S: Final = 10.0
"""Plain lines that only say another percentage are not written more often than this, for each job."""
_TICK_S: Final = 1.0
_MAX_MESSAGES: Final = 10
"""Jobs whose error is shown."""
_CODES: Final = {"failed": ExitCode.JOB_FAILED, "canceled": ExitCode.JOB_CANCELED}


@click.command(
    epilog=examples(
        "jobsvc wait opening-title-0042 --timeout 2h && jobsvc download opening-title-0042",
        "jobsvc wait shot-0100 shot-0110 shot-0120 -o jsonl",
        "jobsvc wait --any shot-0100 shot-0110 -o id",
    )
)
@click.argument("job_ids", metavar="ID...", type=JobId(*UNFINISHED), nargs=-1, required=True)
@click.option("--timeout", metavar="DURATION", type=Duration(), help="Maximum time, such as 30m or 2h.")
@click.option("--any", "first_only", is_flag=True, help="Wait until one of the jobs is final, not all.")
@output_option("text", "json", "jsonl", "id")
@with_client
def wait(
    client: Client, /, job_ids: tuple[str, ...], *, timeout: int | None, first_only: bool, form: str
) -> None:
    """Wait until jobs are completed, failed or canceled.

    Exit codes: 0 if all are completed, 3 if one failed, 5 if one was canceled, 124 after the timeout. With
    --any only jobs that are final count. `json` and `jsonl` write the last known state of all jobs, `id` the
    ids of those that are final.
    """
    ids = tuple(dict.fromkeys(job_ids))
    timed_out: WaitTimeout | None = None
    with open_display() as display, _Report(display, len(ids), form) as report:
        try:
            jobs = client.wait(*ids, timeout=timeout, on_change=report.changed, first_only=first_only)
        except WaitTimeout as exc:
            timed_out, jobs = exc, exc.jobs
        report.end(jobs, timed_out=timed_out is not None)
    _write_result(jobs, form)
    _fail_for(jobs, timed_out)


def wait_until_completed(client: Client, display: Display, job_id: str, *, timeout: int | None) -> None:
    """Wait for a job, and show its changes on standard error. Raises ClientFailure if it is not completed."""
    with _Report(display, 1, "id") as report:
        jobs = client.wait(job_id, timeout=timeout, on_change=report.changed)
        report.end(jobs, timed_out=False)
    _fail_for(jobs, None)


class _Report:
    """Shows changes while they happen, and each final state once; the ticks come from a thread."""

    def __init__(self, display: Display, count: int, form: str) -> None:
        self._display, self._count = display, count
        self._result = display.result if form == "text" else lambda line: display.final(line.decode())
        self._err = form != "text"
        self._is_live = progress_form() is ProgressForm.LIVE
        self._started_at = time.monotonic()
        self._latest: Job | None = None
        """The unfinished job that changed last."""
        self._shown: dict[str, tuple[str, float]] = {}
        """By job: what a line must show at once, and when the last line was written."""
        self._final: set[str] = set()
        self._lock, self._stop = Lock(), Event()
        self._ticker = Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self._is_live:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._is_live:
            self._ticker.join()

    def changed(self, job: Job) -> None:
        """Show a state of a job."""
        with self._lock:
            if job.done:
                self._write_final(job)
            else:
                self._latest = job
                self._write_line(job)
            if self._is_live and len(self._final) < self._count:
                self._draw()

    def end(self, jobs: Iterable[Job], *, timed_out: bool) -> None:
        """Write the states that were not written yet; after a timeout also those of unfinished jobs."""
        with self._lock:
            for job in jobs:
                if job.done or timed_out:
                    self._write_final(job)

    def _write_final(self, job: Job) -> None:
        if job.id not in self._final:
            self._final.add(job.id)
            self._result(
                f"{one_line(job.id)}  {coloured(job.status, err=self._err)}  {percent(job)}".encode()
            )

    def _write_line(self, job: Job) -> None:
        if self._is_live:
            return
        urgent = f"{job.status} {job.stalled} {job.document.get('phase')}"
        shown, shown_at = self._shown.get(job.id, ("", 0.0))
        now = time.monotonic()
        if urgent != shown or now - shown_at >= LINE_INTERVAL_S:
            self._shown[job.id] = urgent, now
            self._display.final(_line(job))

    def _tick(self) -> None:
        while not self._stop.wait(_TICK_S):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        parts = [format_clock(time.monotonic() - self._started_at)]
        if self._count > 1:
            parts.append(f"{len(self._final)} of {self._count} final")
        if self._latest is not None:
            parts.append(_line(self._latest))
        self._display.status("  ".join(parts))


def _line(job: Job) -> str:
    detail = "" if job.done else detail_of(job)
    return "  ".join(filter(None, (one_line(job.id), one_line(job.status), percent(job), detail)))


def _write_result(jobs: list[Job], form: str) -> None:
    if form == "json":
        write_json_array(job.document for job in jobs)
    for job in jobs:
        if form == "jsonl":
            write_json(job.document)
        elif form == "id" and job.done:
            click.echo(one_line(job.id))


def _fail_for(jobs: list[Job], timed_out: WaitTimeout | None) -> None:
    """End with the exit code of the jobs' states; the timeout takes precedence, then failed jobs."""
    ended = [job for job in jobs if job.status in _CODES]
    messages = [_message(job) for job in ended[:_MAX_MESSAGES]]
    if len(ended) > len(messages):
        messages.append(f"{len(ended) - len(messages)} more jobs failed or were canceled.")
    for message in messages if timed_out else messages[:-1]:
        complain(message)
    if timed_out is not None:
        raise timed_out
    if ended:
        raise ClientFailure(messages[-1], min(_CODES[job.status] for job in ended))


def _message(job: Job) -> str:
    if job.status == "canceled":
        return f"{job.id} was canceled."
    reason = f": {job.error.rstrip('.')}" if job.error else ""
    return f"{job.id} failed{reason}. `jobsvc logs {job.id}` shows its log."
