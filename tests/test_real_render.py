"""The main job on real input: ffmpeg's own render watched over HTTP from queued to completed, fetched by curl
across an interruption, and read by ffprobe. Runs where these programs are.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest

from jobsvc.cli.demo_render import FPS, DemoFarm
from tests.conftest import StartProcess
from tests.eventually import wait_until
from tests.service_runner import Process

JOB = "seahorse-valley-0001"
FRAMES = 4 * FPS
"""Four seconds of film, rendered in as many."""
KEPT = 70_000
"""Bytes that the first curl brings before it is killed; the film has many more than these and a pipe's."""
PROBE = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json"]

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("ffmpeg", "curl", "ffprobe")),
    reason="ffmpeg, curl and ffprobe are not all here",
)


def said(*command: str | Path) -> bytes:
    """Run a program that must succeed, and return what it says."""
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=20).stdout


def curl(service: Process, tail: str, *words: str | Path) -> list[str | Path]:
    """Write the command that asks for an address of the job."""
    auth = ["-H", f"Authorization: Bearer {service.token}"]
    return ["curl", "-sS", *auth, *words, f"http://127.0.0.1:{service.port}/api/jobs/{JOB}{tail}"]


@contextmanager
def rendering(farm: DemoFarm) -> Iterator[None]:
    """Have the farm at work in a thread of its own."""
    worker = Thread(target=farm.run, args=(0,))
    worker.start()
    try:
        yield
    finally:
        farm.stop()
        worker.join(20)
        assert not worker.is_alive()


def watched(service: Process, deadline: float = 40) -> Iterator[dict[str, Any]]:
    """Poll as a client does, and give each state of the job that is new, until it is done."""
    seen, ends = None, time.monotonic() + deadline
    while seen is None or not seen["done"]:
        assert time.monotonic() < ends, f"not done within {deadline} s: {seen}"
        state = orjson.loads(said(*curl(service, "", "--fail")))
        if state != seen:
            yield (seen := state)


def interrupted(command: list[str | Path]) -> bytes:
    """Kill a client within its download: it writes to a pipe and stands still when so much of it was read."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdout is not None
            return client.stdout.read(KEPT)
        finally:
            assert client.poll() is None
            client.kill()


def test_a_render_is_watched_from_queued_to_a_film_that_is_fetched_resumed_and_plays(
    start_process: StartProcess, jobs_root: Path, tmp_path: Path
) -> None:
    service = start_process("--limit-status", "1000000/minute")
    farm = DemoFarm(jobs_root / JOB, "ffmpeg", owner="anna", frames=FRAMES, tell=lambda *_: None)
    farm.queue()
    states = watched(service)
    seen = [next(states)]
    assert orjson.loads(said(*curl(service, "/download")))["code"] == "job-not-completed"
    with rendering(farm):
        seen += states
    assert list(dict.fromkeys(state["status"] for state in seen)) == ["queued", "rendering", "completed"]
    progress = [state["progress"] for state in seen]
    assert (progress[0], progress[-1]) == (0, 100)
    assert progress == sorted(progress)
    under_way = {state["progress"] for state in seen if state["status"] == "rendering"}
    assert len(under_way - {0, 99}) >= 4
    assert max(under_way) < 100
    assert {"downloadUrl" in state for state in seen[:-1]} == {False}
    assert seen[-1]["downloadUrl"].startswith(f"/api/jobs/{JOB}/download?version=")
    assert seen[-1]["framesDone"] == FRAMES

    whole = (jobs_root / JOB / seen[-1]["outputPath"]).read_bytes()
    copy, head = tmp_path / "copy.mp4", tmp_path / "head"
    copy.write_bytes(interrupted(curl(service, "/download")))
    assert copy.stat().st_size == KEPT < len(whole)
    for _ in range(2):  # once more when nothing is missing: the 416 leaves the file as it is
        said(*curl(service, "/download", "-C", "-", "-o", copy, "-D", head))
        assert copy.read_bytes() == whole
    assert f"Content-Range: bytes */{len(whole)}".encode() in head.read_bytes()
    wait_until(lambda: len(service.downloads()) == 2)
    resumed = service.downloads()[1]
    assert resumed["range"] == f"bytes {KEPT}-{len(whole) - 1}/{len(whole)}"
    assert (resumed["bytesSent"], resumed["outcome"]) == (len(whole) - KEPT, "complete")
    [video] = orjson.loads(said(*PROBE, copy))["streams"]
    assert (video["codec_type"], video["nb_read_frames"]) == ("video", str(FRAMES))
