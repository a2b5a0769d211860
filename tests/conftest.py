"""What every test gets: a loop that may not touch storage, and a farm's way of writing jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest

from tests.loop_watch import LoopWatch


@pytest.fixture(autouse=True)
def loop_watch() -> Iterator[LoopWatch]:
    """Fail a test in which our code, or aiohttp's, touches storage on a thread that runs a loop."""
    with LoopWatch() as watch:
        yield watch
    assert not watch.seen, "\n".join(watch.seen)


class MakeJob(Protocol):
    """Writes a job as a farm does."""

    def __call__(
        self, job_id: str = "job-1", *, output: bytes | None = None, log: bytes | None = None, **record: Any
    ) -> Path:
        """Write or replace a job and return its folder; `record` are fields of status.json beside the needed.

        With `output` the job is completed, and the bytes are where outputPath says (output/film.mp4).
        """


@pytest.fixture
def jobs_root(tmp_path: Path) -> Path:
    root = tmp_path / "jobs"
    root.mkdir()
    return root


@pytest.fixture
def make_job(jobs_root: Path) -> MakeJob:
    def make(
        job_id: str = "job-1", *, output: bytes | None = None, log: bytes | None = None, **record: Any
    ) -> Path:
        folder = jobs_root / job_id
        folder.mkdir(exist_ok=True)
        if output is not None:
            record = {"status": "completed", "outputPath": "output/film.mp4", **record}
            put(folder / record["outputPath"], output)
        if log is not None:
            put(folder / record.get("logPath", "render.log"), log)
        put(folder / "status.json", orjson.dumps({"status": "queued", "owner": "anna", **record}))
        return folder

    return make


def put(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it there, as a farm should."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name[:200]}.new")
    beside.write_bytes(data)
    os.replace(beside, path)  # noqa: PTH105 - os.replace may be watched by the very test that calls this
