from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import pytest
from structlog.testing import capture_logs

from jobsvc.domain.status_record import parse_record
from jobsvc.index.digests import digest_service as module
from jobsvc.index.digests import recent_failures
from jobsvc.index.digests.digest_service import (
    MAX_BYTES_PER_S,
    PAUSE_FACTOR_BUSY,
    PAUSE_FACTOR_IDLE,
    DigestService,
    pause_after,
)
from jobsvc.index.digests.recent_failures import RETRY_AFTER_S
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files import file_version
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs import output_hash as hashing_module
from jobsvc.storage.jobs.output_hash import OutputHasher
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.state.digest_file import DigestFile
from tests.checks.open_fds import open_paths
from tests.conftest import MakeJob, put
from tests.eventually import until

pytestmark = pytest.mark.both_loops

FILM: Final = b"film" * 1000
SHA: Final = hashlib.sha256(FILM).digest()


class Bench:
    """Digests over a real root, and their results."""

    def __init__(self, root: Path, state: Path, disk: StorageExecutor) -> None:
        self.root = JobsRoot(root)
        self.path = state / "digests.jsonl"
        self.disk = disk
        self.notified: list[str] = []
        self.crcs: list[tuple[FileVersion, int]] = []
        self.now = 1000.0
        self.busy = False
        self.begin()

    def begin(self) -> None:
        """Start again, as after a restart."""
        self.metrics = Metrics()
        self.digests = DigestService(
            self.disk,
            self.root,
            DigestFile(self.path),
            self.metrics,
            is_busy=lambda: self.busy,
            clock=lambda: self.now,
            on_crc32=lambda *found: self.crcs.append(found),
        )

    def running(self) -> AbstractAsyncContextManager[None]:
        return self.digests.running(self.notified.append)

    def read(self, job_id: str) -> JobSnapshot:
        return self.root.read(job_id)

    def request(self, job_id: str) -> bytes | None:
        snapshot = self.read(job_id)
        assert snapshot.output_version is not None
        return self.digests.request(snapshot.job, snapshot.output_version)

    def known(self, job_id: str) -> bytes | None:
        return self.digests.known(self.read(job_id))

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"jobsvc_{name}", labels) or 0

    def ended(self, outcome: str) -> float:
        return self.count("digests_total", outcome=outcome)


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[StorageExecutor]:
    """An executor with a long deadline, because a busy disk is slow.

    A test of a hanging disk passes the seconds after which storage counts as hanging.
    """
    disk = StorageExecutor(background_deadline=getattr(request, "param", 20))
    yield disk
    disk.close()


@pytest.fixture
def bench(jobs_root: Path, state_dir: Path, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Treat new files as stable."""
    monkeypatch.setattr(module, "TIMESTAMP_GRANULARITY_NS", 0)
    return Bench(jobs_root, state_dir, disk)


class Faulty:
    """How reads of one job's output fail: raise or hang."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inode = path.stat().st_ino
        self.reads = 0
        self.release = threading.Event()
        self.hangs = False
        self._preadv = os.preadv
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, fd: int, into: Any, at: int) -> int:
        if os.fstat(fd).st_ino == self.inode:
            self.reads += 1
            if not self.hangs:
                raise OSError(5, "Input/output error")
            self.release.wait(20)
        return self._preadv(fd, into, at)


@pytest.fixture
def faulty(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    faulty = Faulty(make_job("faulty", output=FILM) / "output" / "film.mp4", monkeypatch)
    yield faulty
    faulty.release.set()


async def test_crc32_of_an_output_is_reported_if_its_job_lists_outputs(
    bench: Bench, make_job: MakeJob
) -> None:
    make_job("a", output=FILM)
    listed = [{"name": "film", "path": "output/film.mp4", "role": "main"}, {"name": "log", "path": "log"}]
    make_job("b", output=FILM, outputs=listed)
    async with bench.running():
        for job_id in "ab":
            bench.request(job_id)
        await until(lambda: len(bench.notified) == 2)
    assert bench.crcs == [(bench.read("b").output_version, crc32(FILM))]


async def test_requested_digest_is_computed_and_notified(bench: Bench, make_job: MakeJob) -> None:
    make_job("a", output=FILM)
    async with bench.running():
        assert bench.request("a") is None
        await until(lambda: bench.known("a"))
        assert (bench.known("a"), bench.request("a"), bench.notified) == (SHA, SHA, ["a"])
    assert (bench.ended("computed"), bench.count("digest_bytes_total")) == (1, len(FILM))
    assert (bench.count("digests_known"), bench.count("digests_waiting")) == (1, 0)


async def test_output_without_a_request_is_not_read(bench: Bench, make_job: MakeJob) -> None:
    make_job("a", output=FILM)
    make_job("b", output=FILM)
    async with bench.running():
        bench.request("a")
        await until(lambda: bench.known("a"))
        assert (bench.known("b"), bench.count("digest_bytes_total")) == (None, len(FILM))


async def test_job_without_an_output_has_no_digest(bench: Bench, make_job: MakeJob) -> None:
    make_job("a", status="queued")
    assert bench.known("a") is None


async def test_digest_survives_a_restart_and_a_crash(bench: Bench, make_job: MakeJob) -> None:
    make_job("a", output=FILM)
    async with bench.running():
        bench.request("a")
        await until(lambda: bench.path.exists() and bench.path.read_bytes().endswith(b"\n"))
        bench.begin()  # the first was not closed
        async with bench.running():
            assert bench.known("a") == SHA
            assert bench.request("a") == SHA
        assert bench.count("digest_bytes_total") == 0


async def test_new_version_of_an_output_has_its_own_digest(bench: Bench, make_job: MakeJob) -> None:
    folder = make_job("a", output=FILM)
    async with bench.running():
        bench.request("a")
        await until(lambda: bench.known("a"))
        put(folder / "output" / "film.mp4", FILM[::-1])
        assert bench.known("a") is None
        assert bench.request("a") is None
        await until(lambda: bench.known("a"))
        assert bench.known("a") == hashlib.sha256(FILM[::-1]).digest()
        await until(lambda: hashlib.sha256(FILM[::-1]).hexdigest().encode() in bench.path.read_bytes())
    assert bench.notified == ["a", "a"]
    bench.begin()
    async with bench.running():
        assert bench.known("a") == hashlib.sha256(FILM[::-1]).digest()


async def test_file_is_not_hashed_until_it_is_stable(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the timestamp granularity a write leaves every timestamp unchanged."""
    monkeypatch.setattr(module, "TIMESTAMP_GRANULARITY_NS", 2_000_000_000)
    started: list[str] = []

    def spied(root: JobsRoot, job: Any, *rest: Any) -> OutputHasher:
        started.append(job.id)
        return OutputHasher(root, job, *rest)

    monkeypatch.setattr(module, "OutputHasher", spied)
    make_job("new", output=FILM)
    make_job("old", output=FILM)
    async with bench.running():
        bench.request("new")
        bench.now += 1.9
        monkeypatch.setattr(file_version, "TIMESTAMP_GRANULARITY_NS", -1)
        bench.request("old")
        await until(lambda: bench.known("old"))
        assert started == ["old"]
        bench.now += 0.2
        bench.request("old")
        make_job("third", output=FILM)
        bench.request("third")  # wakes it: the clock of this test is not the loop's
        await until(lambda: bench.known("new"))


async def test_output_changed_after_the_request_is_counted_and_its_new_version_can_be_requested(
    bench: Bench, make_job: MakeJob
) -> None:
    folder = make_job("a", output=FILM)
    bench.request("a")
    put(folder / "output" / "film.mp4", b"other")
    with capture_logs() as logged:
        async with bench.running():
            await until(lambda: bench.ended("changed"))
            assert bench.request("a") is None
            await until(lambda: bench.known("a"))
    assert bench.known("a") == hashlib.sha256(b"other").digest()
    assert [(line["event"], line["job"]) for line in logged] == [("digest-not-computed", "a")]


async def test_storage_error_is_logged_and_counted_and_others_continue(
    bench: Bench, faulty: Faulty, make_job: MakeJob
) -> None:
    make_job("good", output=FILM)
    with capture_logs() as logged:
        async with bench.running():
            bench.request("faulty")
            bench.request("good")
            await until(lambda: bench.known("good"))
    assert bench.known("faulty") is None
    assert (bench.ended("failed"), bench.ended("computed"), faulty.reads) == (1, 1, 1)
    (line,) = logged
    assert (line["event"], line["job"], line["size"]) == ("digest-not-computed", "faulty", len(FILM))
    assert "Input/output error" in line["reason"]


async def test_failing_file_is_read_at_most_once_a_minute(bench: Bench, faulty: Faulty) -> None:
    async with bench.running():
        bench.request("faulty")
        await until(lambda: bench.ended("failed") == 1)
        for _ in range(5):
            assert bench.request("faulty") is None
        assert bench.count("digests_waiting") == 0
        bench.now += RETRY_AFTER_S
        bench.request("faulty")
        await until(lambda: bench.ended("failed") == 2)
    assert faulty.reads == 2


@pytest.mark.parametrize("disk", [2.0], indirect=True)
async def test_hanging_read_is_abandoned_and_others_continue(
    bench: Bench, faulty: Faulty, make_job: MakeJob, jobs_root: Path
) -> None:
    faulty.hangs = True
    make_job("good", output=FILM)
    async with bench.running():
        bench.request("faulty")
        bench.request("good")
        await until(lambda: bench.known("good"))
        assert (bench.ended("failed"), bench.known("faulty")) == (1, None)
        assert len(open_paths(jobs_root / "faulty")) == 1, "a thread is reading it"
        faulty.release.set()
        await until(lambda: not open_paths(jobs_root))
    assert bench.known("faulty") is None


@pytest.mark.parametrize("disk", [0.3], indirect=True)
async def test_service_continues_and_ends_with_more_hanging_reads_than_threads(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(os, "preadv", lambda *_: release.wait(20) and 0)
    try:
        for number in range(10):
            make_job(f"job-{number}", output=FILM)
        async with bench.running():
            for number in range(10):
                bench.request(f"job-{number}")
            await until(lambda: bench.ended("failed") == 10)
    finally:
        release.set()


@pytest.mark.alone
async def test_shutdown_is_immediate_with_a_hanging_read(
    bench: Bench, faulty: Faulty, jobs_root: Path, disk: StorageExecutor
) -> None:
    faulty.hangs = True
    async with bench.running():
        bench.request("faulty")
        await until(lambda: faulty.reads)
        started = time.monotonic()
    assert time.monotonic() - started < 0.25, "the deadline of the read is later"
    faulty.release.set()
    await until(lambda: not open_paths(jobs_root))
    assert disk.stuck_threads() == 0


async def test_shutdown_during_a_pause_leaves_nothing_open(
    bench: Bench, make_job: MakeJob, jobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "pause_after", lambda *_, **__: 60)
    make_job("a", output=FILM)
    make_job("b", output=FILM)
    async with bench.running():
        bench.request("a")
        await until(lambda: bench.known("a"))
        bench.request("b")
        await until(lambda: open_paths(jobs_root))
    await until(lambda: not open_paths(jobs_root))


async def test_one_file_is_read_at_a_time_and_a_version_in_progress_is_not_queued_again(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    in_progress: set[str] = set()
    advance = OutputHasher.hash_slice

    def watched(work: OutputHasher) -> int:
        in_progress.add(work._job.id)
        at_once.append(len(in_progress))
        bench.request(work._job.id)
        try:
            return advance(work)
        finally:
            in_progress.discard(work._job.id)

    monkeypatch.setattr(OutputHasher, "hash_slice", watched)
    for job_id in "abcde":
        make_job(job_id, output=FILM)
    async with bench.running():
        for job_id in "abcde":
            bench.request(job_id)
        assert bench.count("digests_waiting") == 5
        await until(lambda: all(map(bench.known, "abcde")))
        await until(lambda: bench.count("digests_waiting") == 0)
    assert at_once == [1] * 5
    assert bench.ended("computed") == 5


async def test_small_files_of_all_owners_are_hashed_while_a_huge_one_is_in_progress(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.1)
    monkeypatch.setattr(bench.digests, "_clock", time.monotonic)
    huge = make_job("huge", output=b"") / "output" / "film.mp4"
    os.truncate(huge, 2**40)
    make_job("same-owner", output=FILM)
    make_job("another", output=FILM, owner="ben")
    async with bench.running():
        bench.request("huge")
        await until(lambda: bench.count("digest_bytes_total") > 0)
        bench.request("same-owner")
        bench.request("another")
        await until(lambda: bench.known("same-owner") and bench.known("another"), 20)
        hashed = bench.count("digest_bytes_total")
        await until(lambda: bench.count("digest_bytes_total") > hashed + len(FILM), 20)


async def test_digest_that_took_many_turns_is_that_of_the_file(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0)
    monkeypatch.setattr(hashing_module, "SLICE_S", 0)
    monkeypatch.setattr(hashing_module, "READ_BYTES", 100)
    for job_id, owner in (("a", "ann"), ("b", "ben"), ("c", "ben")):
        make_job(job_id, output=job_id.encode() * 1000, owner=owner)
    async with bench.running():
        for job_id in "abc":
            bench.request(job_id)
        await until(lambda: all(map(bench.known, "abc")), 20)
    for job_id in "abc":
        assert bench.known(job_id) == hashlib.sha256(job_id.encode() * 1000).digest()


@pytest.mark.parametrize(
    ("seconds", "size", "busy", "expected"),
    [
        (0.05, 1_000_000, False, 0.05 * PAUSE_FACTOR_IDLE),
        (0.05, 1_000_000, True, 0.05 * PAUSE_FACTOR_BUSY),
        (3.0, 1_000_000, True, 3.0 * PAUSE_FACTOR_BUSY),
        (0.05, MAX_BYTES_PER_S, False, 0.95),
        (0.05, MAX_BYTES_PER_S, True, 0.95),
        (0.0, 0, True, 0),
    ],
)
def test_pause_after_a_slice_depends_on_its_time_and_bytes(
    seconds: float,
    size: int,
    busy: bool,  # noqa: FBT001 - a parameter
    expected: float,
) -> None:
    assert pause_after(seconds, size, is_busy=busy) == pytest.approx(expected)


@pytest.mark.parametrize("downloads", [0, 1])
async def test_active_downloads_are_checked_at_each_slice(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, downloads: int
) -> None:
    calls: list[tuple[int, bool]] = []

    def record_pause(_seconds: float, size: int, *, is_busy: bool) -> float:
        calls.append((size, is_busy))
        return 0

    monkeypatch.setattr(module, "pause_after", record_pause)
    bench.busy = downloads > 0
    make_job("a", output=FILM)
    async with bench.running():
        bench.request("a")
        await until(lambda: bench.known("a"))
    assert calls == [(len(FILM), downloads > 0)]


async def test_queued_requests_per_owner_are_limited_and_the_rest_counted(
    bench: Bench, make_job: MakeJob
) -> None:
    make_job("a", output=FILM)
    job, output = bench.read("a").job, bench.read("a").output_version
    assert output is not None
    for number in range(300):
        named = parse_record(f"job-{number}", {"status": "done", "owner": job.owner}, 0)
        bench.digests.request(named, output)
    assert (bench.count("digests_waiting"), bench.ended("turned-away")) == (256, 44)


async def test_files_of_a_page_are_requested_up_to_the_limit_of_the_owner(
    bench: Bench, make_job: MakeJob
) -> None:
    make_job("a", output=FILM)
    job, output = bench.read("a").job, bench.read("a").output_version
    assert output is not None
    for _ in range(2):
        bench.digests.request_files(job, [(f"output/{number}", output) for number in range(1000)])
    assert (bench.count("digests_waiting"), bench.ended("turned-away")) == (256, 2)


async def test_file_with_a_known_digest_is_not_requested_again(bench: Bench, make_job: MakeJob) -> None:
    make_job("a", output=FILM)
    job, output = bench.read("a").job, bench.read("a").output_version
    assert output is not None
    async with bench.running():
        bench.digests.request_files(job, [(job.output_path or "", output)])
        await until(lambda: bench.known("a"))
        bench.digests.request_files(job, [(job.output_path or "", output)])
    assert (bench.ended("computed"), bench.count("digests_waiting")) == (1, 0)


async def test_number_of_remembered_failures_is_limited(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_failures, "MAX_RECENTLY_FAILED", 2)
    async with bench.running():
        for job_id in "abc":
            folder = make_job(job_id, output=FILM)
            bench.request(job_id)
            put(folder / "output" / "film.mp4", b"other")
        await until(lambda: bench.ended("changed") == 3)
    assert len(bench.digests._recently_failed._failed) == 2


@pytest.mark.parametrize(
    ("harm", "event"),
    [
        (lambda path: path.chmod(0o644), "digests-not-read"),
        (lambda path: path.write_bytes(b'half a li\n{"job":'), "digests-skipped"),
    ],
)
async def test_unreadable_digest_file_is_ignored_and_rewritten(
    bench: Bench, make_job: MakeJob, harm: Callable[[Path], None], event: str
) -> None:
    make_job("a", output=FILM)
    make_job("b", output=FILM)
    async with bench.running():
        bench.request("a")
        await until(bench.path.exists)
    harm(bench.path)
    bench.begin()
    with capture_logs() as logged:
        async with bench.running():
            assert bench.known("a") is None
            bench.request("b")
            await until(lambda: b'"job":"b"' in bench.path.read_bytes())
    assert [line["event"] for line in logged] == [event]
    assert bench.count("digest_file_errors_total") == (1 if event == "digests-not-read" else 2)
    bench.begin()
    async with bench.running():
        assert bench.known("b") == SHA
    assert bench.count("digest_file_errors_total") == 0


async def test_digest_that_cannot_be_saved_is_still_known(
    bench: Bench, make_job: MakeJob, state_dir: Path
) -> None:
    make_job("a", output=FILM)
    with capture_logs() as logged:
        async with bench.running():
            shutil.rmtree(state_dir)
            bench.request("a")
            await until(lambda: bench.count("digest_file_errors_total"))
            assert bench.known("a") == SHA
    assert [line["event"] for line in logged] == ["digests-not-saved"]


async def test_internal_error_in_one_digest_does_not_stop_the_next(bench: Bench, make_job: MakeJob) -> None:
    def tell(job_id: str) -> None:
        bench.notified.append(job_id)
        raise RuntimeError(job_id)

    make_job("a", output=FILM)
    make_job("b", output=FILM)
    with capture_logs() as logged:
        async with bench.digests.running(tell):
            bench.request("a")
            bench.request("b")
            await until(lambda: bench.known("b"))
    assert bench.notified == ["a", "b"]
    assert [line["event"] for line in logged] == ["index-fault", "index-fault"]


async def test_failed_writes_of_digests_are_each_counted_and_logged_once(
    bench: Bench, make_job: MakeJob, state_dir: Path
) -> None:
    jobs = "abc"
    for job_id in jobs:
        make_job(job_id, output=FILM)
    with capture_logs() as logged:
        async with bench.running():
            shutil.rmtree(state_dir)
            for job_id in jobs:
                bench.request(job_id)
            await until(lambda: bench.count("digest_file_errors_total") == len(jobs))
            assert all(bench.known(job_id) == SHA for job_id in jobs)
    assert [line["event"] for line in logged] == ["digests-not-saved"]
