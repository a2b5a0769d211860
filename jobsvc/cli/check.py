"""jobsvc check: names every job directory that clients can't be served from, and says why.

It reads as the service reads; it writes nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import orjson

from jobsvc.cli.options import WrongSetting, given, settings_options, wrong_settings_told
from jobsvc.domain.job import SYNONYMS, BadRecord, Status
from jobsvc.settings import NO_JOBS_ROOT, resolve
from jobsvc.storage.reader import JobsRoot
from jobsvc.storage.walk import Absent


@dataclass(frozen=True, slots=True)
class Finding:
    """One job directory that needs its farm's attention."""

    job: str
    code: str
    """bad-record, record-missing, output-missing or storage."""
    reason: str


@click.command
@settings_options("jobs-root", "output-root", "status-alias", "config")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines, the summary last.")
@click.pass_context
def check(ctx: click.Context, /, *, as_json: bool, **_: object) -> None:
    """Read every job beneath JOBS_ROOT and name those that are not as they should be; exit 1 if any."""
    root = _root(ctx)
    try:
        ids, ignored = root.scan()
    except OSError as wrong:
        raise WrongSetting(f"jobs-root: {str(root.path)!r} can't be listed: {wrong.strerror}") from wrong
    found = 0
    for finding in _findings(root, sorted(ids)):
        found += 1
        click.echo(orjson.dumps(finding) if as_json else f"{finding.job}: {finding.reason}")
    click.echo(_summary(len(ids), found, ignored, as_json=as_json))
    ctx.exit(1 if found else 0)


def _root(ctx: click.Context) -> JobsRoot:
    with wrong_settings_told():
        values = resolve(given(ctx))
    path: Path | None = values.get("jobs_root")
    if path is None:
        raise WrongSetting(NO_JOBS_ROOT)
    return JobsRoot(path, values.get("output_roots", ()), values.get("status_aliases", SYNONYMS))


def _findings(root: JobsRoot, ids: list[str]) -> Iterator[Finding]:
    for job_id in ids:
        finding = _examine(root, job_id)
        if finding is not None:
            yield finding


def _examine(root: JobsRoot, job_id: str) -> Finding | None:
    try:
        reading = root.read(job_id)
    except Absent:
        return Finding(job_id, "record-missing", "status.json: missing, or not a regular file")
    except BadRecord as wrong:
        return Finding(job_id, "bad-record", str(wrong))
    except OSError as wrong:
        return Finding(job_id, "storage", f"storage: {wrong.strerror}")
    job = reading.job
    if reading.output or job.status is not Status.COMPLETED:
        return None
    if job.output_path is None:
        return Finding(job_id, "output-missing", "outputPath: missing, though the job is completed")
    return Finding(
        job_id,
        "output-missing",
        f"outputPath: {job.output_path[:200]!r} leads to no regular file that may be served",
    )


def _summary(jobs: int, found: int, ignored: int, *, as_json: bool) -> str | bytes:
    if as_json:
        return orjson.dumps({"jobs": jobs, "findings": found, "ignored": ignored})
    return f"{jobs} jobs, {found} with a finding; {ignored} other names ignored"
