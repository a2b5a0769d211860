"""Network storage: delay from another host's change of a job to the list and to an event stream."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import orjson

from benchmarks.harness import farm, host_info, load_generator, servers, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.latency_probe import percentile
from benchmarks.harness.load_generator import TIMEOUT_S, Address, answer, get
from tests.network_storage.gluster import gluster
from tests.network_storage.share import NotPossible
from tests.slow_storage.fuse_mount import missing_requirement, mounted_storage

JOBS: Final = 600
CHANGES_PER_KIND: Final = 200
CHANGE_INTERVAL_S: Final = 0.13
"""Not a multiple of the poll interval, so that changes occur at any moment of it."""
LIST_PAUSE_S: Final = 0.02
SEEN_TIMEOUT_S: Final = 30.0

DELAY_GOAL_S: Final = table.Goal(at_most=4)
"""Seconds: the poll interval of one, the storage's cache time, and the time of the poll."""


def run(plan: Plan) -> None:
    """Measure and print."""
    for name, storage in (("GlusterFS, two mounts", _on_gluster), ("FUSE without events", _on_fuse)):
        with ExitStack() as stack:
            scratch = stack.enter_context(farm.scratch("network", plan.scratch))
            try:
                writer, reader = stack.enter_context(storage(scratch))
            except (NotPossible, ChildProcessError) as reason:
                table.note(f"{name}: {reason}")
                continue
            _measure(name, scratch, writer, reader, int(plan.pick(CHANGES_PER_KIND, 20)))


@contextmanager
def _on_gluster(scratch: Path) -> Iterator[tuple[Path, Path]]:
    folder = scratch / "gluster"
    folder.mkdir()
    with gluster(folder) as share:
        yield share.writer, share.reader


@contextmanager
def _on_fuse(scratch: Path) -> Iterator[tuple[Path, Path]]:
    """Mount a file system whose names and attributes the kernel caches for a second."""
    if missing := missing_requirement():
        raise NotPossible(f"there is no {missing} here")
    folder = scratch / "fuse"
    folder.mkdir()
    with mounted_storage(folder, kernel_cache_s=1) as storage:
        yield storage.folder, storage.mountpoint


def _measure(name: str, scratch: Path, writer: Path, reader: Path, times: int) -> None:
    root = writer / "jobs"
    jobs = farm.fill(root, JOBS)
    token = servers.token(scratch)
    with servers.jobsvc(reader / "jobs", scratch) as server:
        load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 60)
        time.sleep(farm.STABLE_AFTER_S)
        table.title(f"network: {name}; {JOBS} jobs, {times} of each; {host_info.load_average()}")
        with _Stream(server.address, token) as stream, _List(server.address, token) as listing:
            load_generator.until(lambda: stream.ready and listing.ready, SEEN_TIMEOUT_S)
            changed = _change(root, jobs, times)
            all_marks = [mark for marks in changed.values() for mark in marks]
            load_generator.until(
                lambda: all(mark in stream.seen and mark in listing.seen for mark in all_marks),
                SEEN_TIMEOUT_S,
            )
        for kind, marks in changed.items():
            for way, seen in (("list", listing.seen), ("stream", stream.seen)):
                delays = [seen[mark] - renamed_at for mark, renamed_at in marks.items()]
                table.row(f"{kind}, from rename to {way}: median", [percentile(delays, 50)], " s")
                table.row(f"{kind}, from rename to {way}: p95", [percentile(delays, 95)], " s", DELAY_GOAL_S)
                table.row(f"{kind}, from rename to {way}: worst", [max(delays)], " s")


def _change(root: Path, jobs: dict[str, list[str]], times: int) -> dict[str, dict[str, float]]:
    """Create, change and remove jobs in turn, each by a rename; return when each rename was done."""
    kinds = ("new job", "changed unfinished job", "changed finished job", "removed job")
    renamed_at: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    prepared = root.parent / "prepared"
    unfinished, finished = jobs["rendering"] + jobs["queued"], jobs["completed"]

    def new(number: int) -> str:
        farm.put(prepared, f"new-{number}", "queued", attempt=number)
        (prepared / f"new-{number}").rename(root / f"new-{number}")
        return f"new-{number}:{number}"

    def change(number: int) -> str:
        return put(unfinished[number % len(unfinished)], "rendering", number + 1000)

    def finish(number: int) -> str:
        return put(finished[number], "canceled", number + 1000)

    def put(job_id: str, status: str, attempt: int) -> str:
        farm.put(root, job_id, status, attempt=attempt)
        return f"{job_id}:{attempt}"

    def remove(number: int) -> str:
        job_id = finished[-1 - number]
        (root / job_id).rename(prepared / job_id)
        return f"-{job_id}"

    started_at = time.perf_counter()
    ways: tuple[Callable[[int], str], ...] = (new, change, finish, remove)
    for number in range(times * len(ways)):
        time.sleep(max(started_at + number * CHANGE_INTERVAL_S - time.perf_counter(), 0))
        mark = ways[number % len(ways)](number // len(ways))
        list(renamed_at.values())[number % len(ways)][mark] = time.perf_counter()
    shutil.rmtree(prepared, ignore_errors=True)
    return renamed_at


class _Observer:
    """Records when the state of a job is observed: `ID:ATTEMPT`, or `-ID` if it is removed."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token
        self.ready = False
        self.seen: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        raise NotImplementedError

    def _note(self, mark: str) -> None:
        self.seen.setdefault(mark, time.perf_counter())


class _Stream(_Observer):
    def _run(self) -> None:
        with socket.create_connection(self._address, timeout=TIMEOUT_S) as sock:
            sock.sendall(get("/api/events", self._token))
            rest = b""
            while not self._stop.is_set() and (data := sock.recv(1 << 16)):
                *blocks, rest = (rest + data).split(b"\n\n")
                for block in blocks:
                    self._event(block)

    def _event(self, block: bytes) -> None:
        lines = block.split(b"\n")
        data = next((line[6:] for line in lines if line.startswith(b"data: ")), b"")
        if b"event: present" in lines:
            self.ready = True
        elif b"event: removed" in lines:
            self._note(f"-{orjson.loads(data)['id']}")
        elif b"event: job" in lines:
            job = orjson.loads(data)
            self._note(f"{job['id']}:{job['attempt']}")


class _List(_Observer):
    def _run(self) -> None:
        before: set[str] = set()
        while not self._stop.is_set():
            now = {job["id"]: job["attempt"] for job in self._jobs()}
            for job_id, attempt in now.items():
                self._note(f"{job_id}:{attempt}")
            for job_id in before - now.keys():
                self._note(f"-{job_id}")
            before = set(now)
            self.ready = True
            self._stop.wait(LIST_PAUSE_S)

    def _jobs(self) -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            path = "/api/jobs?limit=200" + (f"&cursor={cursor}" if cursor else "")
            page = orjson.loads(answer(self._address, get(path, self._token))[1])
            yield from page["jobs"]
            cursor = page["nextCursor"]
