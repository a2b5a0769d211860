"""Fifty jobs are written at once, while one client polls all of them and another follows their events."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import requests

from jobsvc import client
from jobsvc.client import Client
from jobsvc.farm import Job
from tests.conftest import StartProcess
from tests.programs.service_runner import Process

JOBS: Final = 50
FRAMES: Final = 12
FRAME_S: Final = 0.25
STATES: Final = ("queued", "rendering", "completed")
UNLIMITED: Final = ("--limit-status", "1000000/minute", "--limit-download", "1000000/minute")

State = tuple[int, float, int]
"""How far a job is: its status, its progress and its frames. None of them may ever fall."""


def test_states_of_fifty_writers_are_never_wrong(
    start_process: StartProcess, jobs_root: Path, tmp_path: Path
) -> None:
    """One service learns of changes from events, another one polls."""
    jobs = [
        Job.create(jobs_root, owner="anna", job_id=f"job-{number}", output="output/film.mp4", frames=FRAMES)
        for number in range(JOBS)
    ]
    job_ids = {job.id for job in jobs}
    services = {
        watch: start_process("--watch", watch, "--instance", watch, *UNLIMITED)
        for watch in ("events", "poll")
    }
    with ThreadPoolExecutor(JOBS + 2 * len(services)) as threads:
        observers = [
            threads.submit(observe, service, job_ids)
            for service in services.values()
            for observe in (_poll, _follow)
        ]
        for render in [threads.submit(_render, job) for job in jobs]:
            render.result()
        for observer in observers:
            states = observer.result()
            assert states.keys() == job_ids
            for seen in states.values():
                assert seen == sorted(seen)
                assert len(set(seen)) >= 3
                assert seen[-1] == (STATES.index("completed"), 100, FRAMES)
    for watch, service in services.items():
        with _client(service) as reader:
            for job_id in job_ids:
                (film,) = reader.download(job_id, tmp_path / watch / job_id)
                assert film.path.read_bytes() == _film(job_id)
        metrics = requests.get(f"http://127.0.0.1:{service.port}/metrics", timeout=10).text.splitlines()
        assert [line for line in metrics if line.startswith("jobsvc_records_unreadable_total{")] == []


def _client(service: Process) -> Client:
    """Each answer that is not the expected one is raised."""
    return Client(f"http://127.0.0.1:{service.port}", str(service.token), retries=0)


def _render(job: Job) -> None:
    with job:
        for frame in range(FRAMES):
            time.sleep(FRAME_S)
            job.progress(frames=(frame + 1, FRAMES))
            job.log(f"frame {frame + 1} of {FRAMES}")
        (job.path / "output/film.mp4").write_bytes(_film(job.id))


def _film(job_id: str) -> bytes:
    return hashlib.sha256(job_id.encode()).digest() * 2000


def _poll(service: Process, job_ids: Iterable[str]) -> dict[str, list[State]]:
    """Request all jobs in turn until they are completed."""
    states: dict[str, list[State]] = defaultdict(list)
    unfinished = set(job_ids)
    with _client(service) as reader:
        while unfinished:
            for job_id in list(unfinished):
                job = reader.job(job_id)
                states[job_id].append(_state(job))
                if job.done:
                    unfinished.discard(job_id)
    return states


def _follow(service: Process, job_ids: Iterable[str]) -> dict[str, list[State]]:
    """Read the stream of all jobs until they are completed."""
    states: dict[str, list[State]] = defaultdict(list)
    unfinished = set(job_ids)
    with _client(service) as follower:
        for event in follower.watch():
            assert isinstance(event, client.JobChanged)
            states[event.job.id].append(_state(event.job))
            if event.job.done:
                unfinished.discard(event.job.id)
            if not unfinished:
                break
    return states


def _state(job: client.Job) -> State:
    return STATES.index(job.status), job.progress, job.document["framesDone"]
