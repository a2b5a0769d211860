"""The main use case with real programs: a render by ffmpeg is polled over HTTP, fetched by curl and read by
ffprobe.

curl is interrupted once. The test is skipped where these programs are missing.
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
from tests.programs.service_runner import Process

JOB = "seahorse-valley-0001"
FRAMES = 4 * FPS
"""Four seconds of film, rendered in as many."""
KEPT = 70_000
"""Bytes that the first curl downloads before it is killed; the film is much larger than these and a pipe's
buffer.
"""
PROBE = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json"]

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("ffmpeg", "curl", "ffprobe")),
    reason="ffmpeg, curl and ffprobe are not all here",
)


def output_of(*command: str | Path) -> bytes:
    """Run a program that has to succeed, and return its output."""
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=20).stdout


def curl(service: Process, tail: str, *words: str | Path) -> list[str | Path]:
    """Return the command that requests a URL of the job."""
    auth = ["-H", f"Authorization: Bearer {service.token}"]
    return ["curl", "-sS", *auth, *words, f"http://127.0.0.1:{service.port}/api/jobs/{JOB}{tail}"]


@contextmanager
def rendering(farm: DemoFarm) -> Iterator[None]:
    """Run the farm in a thread of its own."""
    worker = Thread(target=farm.run, args=(0,))
    worker.start()
    try:
        yield
    finally:
        farm.stop()
        worker.join(20)
        assert not worker.is_alive()


def watched(service: Process, deadline: float = 40) -> Iterator[dict[str, Any]]:
    """Poll as a client does, and return each new state of the job until it is finished."""
    seen, ends = None, time.monotonic() + deadline
    while seen is None or not seen["done"]:
        assert time.monotonic() < ends, f"not done within {deadline} s: {seen}"
        state = orjson.loads(output_of(*curl(service, "", "--fail")))
        if state != seen:
            yield (seen := state)


def interrupted(command: list[str | Path]) -> bytes:
    """Kill a client during its download: it writes to a pipe that is read only this far."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdout is not None
            return client.stdout.read(KEPT)
        finally:
            assert client.poll() is None
            client.kill()


def test_render_is_polled_fetched_resumed_and_playable(
    start_process: StartProcess, jobs_root: Path, tmp_path: Path
) -> None:
    service = start_process("--limit-status", "1000000/minute")
    farm = DemoFarm(jobs_root / JOB, "ffmpeg", owner="anna", frames=FRAMES, on_state=lambda *_: None)
    farm.queue()
    states = watched(service)
    seen = [next(states)]
    assert orjson.loads(output_of(*curl(service, "/download")))["code"] == "job-not-completed"
    with rendering(farm):
        seen += states
    assert list(dict.fromkeys(state["status"] for state in seen)) == ["queued", "rendering", "completed"]
    progress = [state["progress"] for state in seen]
    assert (progress[0], progress[-1]) == (0, 100)
    assert progress == sorted(progress)
    unfinished = {state["progress"] for state in seen if state["status"] == "rendering"}
    assert len(unfinished - {0, 99}) >= 4
    assert max(unfinished) < 100
    assert {"downloadUrl" in state for state in seen[:-1]} == {False}
    assert seen[-1]["downloadUrl"].startswith(f"/api/jobs/{JOB}/download?version=")
    assert seen[-1]["framesDone"] == FRAMES

    whole = (jobs_root / JOB / seen[-1]["outputPath"]).read_bytes()
    copy, head = tmp_path / "copy.mp4", tmp_path / "head"
    copy.write_bytes(interrupted(curl(service, "/download")))
    assert copy.stat().st_size == KEPT < len(whole)
    for _ in range(2):  # again when nothing is missing: the 416 does not change the file
        output_of(*curl(service, "/download", "-C", "-", "-o", copy, "-D", head))
        assert copy.read_bytes() == whole
    assert f"Content-Range: bytes */{len(whole)}".encode() in head.read_bytes()
    wait_until(lambda: len(service.downloads()) == 2)
    resumed = service.downloads()[1]
    assert resumed["range"] == f"bytes {KEPT}-{len(whole) - 1}/{len(whole)}"
    assert (resumed["bytesSent"], resumed["outcome"]) == (len(whole) - KEPT, "complete")
    [video] = orjson.loads(output_of(*PROBE, copy))["streams"]
    assert (video["codec_type"], video["nb_read_frames"]) == ("video", str(FRAMES))
