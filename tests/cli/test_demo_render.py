from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import orjson
import pytest

from jobsvc.cli.demo_render import DemoFarm, _encoder, _frames_done, find_ffmpeg
from jobsvc.domain.job import Job, Status
from jobsvc.domain.status_record import parse_record

FFMPEG = find_ffmpeg()
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg on the PATH, nor imageio-ffmpeg")
FFPROBE = [
    "ffprobe",
    "-v",
    "error",
    "-count_frames",
    "-show_entries",
    "stream=nb_read_frames",
    "-of",
    "csv=p=0",
]


def _farm(root: Path, ffmpeg: str | None = FFMPEG, *, frames: int = 30) -> DemoFarm:
    farm = DemoFarm(root / "live-1", str(ffmpeg), owner="demo", frames=frames, on_state=lambda *_: None)
    farm.queue()
    return farm


def _job(folder: Path) -> Job:
    return parse_record(folder.name, orjson.loads((folder / "status.json").read_bytes()), 0)


@contextmanager
def _running(call: Callable[[], object]) -> Iterator[Thread]:
    thread = Thread(target=call)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
        assert not thread.is_alive()


def _program(folder: Path, text: str) -> str:
    """Write a program that is called like ffmpeg."""
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def _versions(root: Path, farm: DemoFarm) -> list[tuple[Job, bool]]:
    """Run the farm, and read its record all the while as a service might."""
    folder, seen = root / "live-1", [(_job(root / "live-1"), False)]
    with _running(lambda: farm.run(wait=0.1)) as worker:
        while seen[-1][0].details.completed_at is None:
            job = _job(folder)
            if job != seen[-1][0]:
                seen.append((job, (folder / "output/live-1.mp4").is_file()))
            worker.join(0.002)
    return seen


@needs_ffmpeg
def test_render_completes_and_its_record_is_always_readable(tmp_path: Path) -> None:
    # Three seconds of film, in real time: a process can be stopped for one of them.
    seen = _versions(tmp_path, _farm(tmp_path, frames=75))
    jobs = [job for job, _ in seen]
    states = list(dict.fromkeys(job.status for job in jobs))
    assert states == [Status.QUEUED, Status.RENDERING, Status.COMPLETED]
    assert len(jobs) > 4
    assert jobs == sorted(jobs, key=lambda job: (job.progress, job.details.frames_done, job.updated_order))
    assert all(job.progress < 100 for job in jobs[:-1])
    assert all(there for job, there in seen if job.status is Status.COMPLETED)
    assert jobs[-1].details.frames_done == jobs[-1].details.frames_total == 75
    film = (tmp_path / "live-1/output/live-1.mp4").read_bytes()
    assert film[4:8] == b"ftyp"
    assert film.find(b"moov") < film.find(b"mdat"), "plays while it loads"


@needs_ffmpeg
@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="no ffprobe")
def test_film_has_every_frame(tmp_path: Path) -> None:
    _farm(tmp_path, frames=12).run(wait=0)
    reported = subprocess.run(
        [*FFPROBE, tmp_path / "live-1/output/live-1.mp4"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert reported.stdout.strip() == "12"


@needs_ffmpeg
def test_log_only_grows(tmp_path: Path) -> None:
    farm, log, before = _farm(tmp_path), tmp_path / "live-1/render.log", b""
    with _running(lambda: farm.run(wait=0)) as worker:
        while worker.is_alive():
            now = log.read_bytes() if log.exists() else b""
            assert now.startswith(before)
            before = now
            worker.join(0.01)
    assert b"frame 30 of 30" in log.read_bytes()


def test_job_is_complete_as_soon_as_it_is_visible(tmp_path: Path) -> None:
    _farm(tmp_path, "ffmpeg")
    assert [entry.name for entry in tmp_path.iterdir()] == ["live-1"]
    assert _job(tmp_path / "live-1").status is Status.QUEUED
    assert (tmp_path / "live-1/status.json").stat().st_mode & 0o777 == 0o644


@needs_ffmpeg
def test_stopped_render_is_canceled_and_leaves_no_partial_film(tmp_path: Path) -> None:
    farm = _farm(tmp_path, frames=100_000)
    deadline = time.monotonic() + 20
    with _running(lambda: farm.run(wait=0)) as worker:
        while not _job(tmp_path / "live-1").details.frames_done and time.monotonic() < deadline:
            worker.join(0.01)
        farm.stop()
    assert _job(tmp_path / "live-1").status is Status.CANCELED
    assert list((tmp_path / "live-1/output").iterdir()) == []


def test_job_stopped_in_the_queue_never_starts(tmp_path: Path) -> None:
    farm = _farm(tmp_path, "ffmpeg that is not there")
    with _running(lambda: farm.run(wait=60)):
        farm.stop()
    job = _job(tmp_path / "live-1")
    assert (job.status, job.details.started_at) == (Status.CANCELED, None)


def test_failed_render_has_its_reason_in_record_and_log(tmp_path: Path) -> None:
    broken = _program(tmp_path, "echo 'no space left' >&2; exit 3")
    assert _farm(tmp_path, broken).run(wait=0) is Status.FAILED
    job = _job(tmp_path / "live-1")
    assert job.details.error == "ffmpeg exited with code 3; see the log"
    assert "no space left\n" in (tmp_path / "live-1/render.log").read_text()


def test_ffmpeg_that_cannot_be_run_fails_the_job(tmp_path: Path) -> None:
    assert _farm(tmp_path, str(tmp_path / "nowhere")).run(wait=0) is Status.FAILED
    assert _job(tmp_path / "live-1").details.error == f"{tmp_path}/nowhere: No such file or directory"


def test_progress_never_decreases(tmp_path: Path) -> None:
    reports = "".join(f"frame={n}\\nprogress=continue\\n" for n in (10, 20, 5))
    reported: list[int] = []
    program = _program(tmp_path, f"printf '{reports}'; exit 1")
    farm = DemoFarm(
        tmp_path / "live-1",
        program,
        owner="demo",
        frames=30,
        on_state=lambda _, done, __: reported.append(done),
    )
    farm.queue()
    farm.run(wait=0)
    assert reported == sorted(reported)
    assert reported[-1] == 20


def test_progress_reports_of_ffmpeg_are_parsed() -> None:
    lines = ["frame=7\n", "fps=0.00\n", "progress=continue\n", "frame=N/A\n", "frame= 12\n", "progress=end\n"]
    assert list(_frames_done(lines)) == [7, 12]


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [("V....D mpeg4\nV....D libx264", "libx264"), ("V....D libopenh264", "libopenh264"), ("", "mpeg4")],
)
def test_best_available_encoder_is_used(tmp_path: Path, listed: str, chosen: str) -> None:
    assert _encoder(_program(tmp_path, f"printf '{listed}'")) == chosen


def test_ffmpeg_on_the_path_comes_first_and_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert find_ffmpeg() is None
    program = _program(tmp_path, "true")
    assert find_ffmpeg() == program


def test_ffmpeg_of_the_demo_extra_is_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()
