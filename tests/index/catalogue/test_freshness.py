from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from jobsvc.domain.errors import JobNotFound, StorageUnavailable
from jobsvc.domain.status_record import BadRecord
from jobsvc.index.catalogue import freshness as module
from jobsvc.index.catalogue import shared_reads
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import stat_root
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until
from tests.index.job_dirs import Farm
from tests.index.parts import Parts, make_coverage


class Root(JobsRoot):
    """A real root that counts its reads, and can delay them or make them fail."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm.root)
        self.reads = 0
        self.seen = 0
        self.release = threading.Event()
        self.release.set()
        self.late = threading.Event()
        self.late.set()
        """A read returns its result once this is set; each read waits for the event that was current at its
        start.
        """
        self.fault: OSError | None = None

    def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:
        late = self.late
        self.reads += 1
        self.release.wait(10)
        if self.fault is not None:
            raise self.fault
        try:
            return super().read(job_id, known)
        finally:
            self.seen += 1
            late.wait(10)


class Clock:
    """A clock that only a test advances, except that no two readings are equal."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._readings = count(1)

    def __call__(self) -> float:
        return 1000.0 + self.ahead + next(self._readings) * 1e-6


@pytest.fixture
async def root(farm: Farm) -> AsyncIterator[Root]:
    root = Root(farm)
    yield root
    root.release.set()
    root.late.set()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a read of a known job as long as a busy machine needs."""
    monkeypatch.setattr(module, "KNOWN_DEADLINE_S", 20.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bad() -> list[Any]:
    return []


@pytest.fixture
def parts(disk: StorageExecutor, root: Root, clock: Clock, bad: list[Any]) -> Parts:
    def note(job_id: str, wrong: BadRecord) -> None:
        bad.append((job_id, str(wrong)))

    coverage = make_coverage(lambda snapshot: snapshot.job.id == "wary")
    return Parts(disk, root, clock=clock, coverage=coverage, on_unreadable=note)


@pytest.fixture
def presence(parts: Parts) -> RootCheck:
    return parts.root_check


@pytest.fixture
def coverage(parts: Parts) -> WatchCoverage:
    return parts.coverage


@pytest.fixture
def freshness(parts: Parts) -> Freshness:
    return parts.freshness


async def test_unknown_job_is_read_from_disk(farm: Farm, freshness: Freshness) -> None:
    farm.put("a", progress=7)
    answer = await freshness.get("a")
    assert (answer.snapshot.job.progress, answer.stale) == (7, False)
    assert answer.age < 0.5


async def test_job_verified_within_max_age_is_not_read(farm: Farm, freshness: Freshness, root: Root) -> None:
    farm.put("a")
    await freshness.get("a")
    for _ in range(10):
        await freshness.get("a")
    assert root.reads == 1


async def test_job_older_than_max_age_is_read_again(farm: Farm, freshness: Freshness, clock: Clock) -> None:
    farm.put("a", progress=1)
    await freshness.get("a")
    farm.put("a", progress=2)
    clock.ahead += 1.1
    assert (await freshness.get("a")).snapshot.job.progress == 2


async def test_job_verified_without_a_wait_is_not_read(
    farm: Farm, freshness: Freshness, root: Root, clock: Clock
) -> None:
    farm.put("a")
    first = (await freshness.get("a")).snapshot
    freshness.is_unchanged_nowait = lambda reading: reading is first
    clock.ahead += 1.1
    answer = await freshness.get("a")
    assert (answer.snapshot, answer.stale, root.reads) == (first, False, 1)
    assert answer.age < 0.5
    freshness.is_unchanged_nowait = lambda _reading: False
    clock.ahead += 1.1
    await freshness.get("a")
    assert root.reads == 2


async def test_forced_refresh_reads_despite_verification_without_a_wait(
    farm: Farm, freshness: Freshness, root: Root
) -> None:
    farm.put("a")
    freshness.is_unchanged_nowait = lambda _reading: True
    await freshness.get("a")
    await freshness.get("a", force=True)
    assert root.reads == 2


async def test_nothing_is_fresh_while_storage_is_unavailable(
    farm: Farm, freshness: Freshness, clock: Clock, presence: RootCheck
) -> None:
    farm.put("a")
    await freshness.get("a")
    freshness.is_unchanged_nowait = lambda _reading: True
    clock.ahead += 1.1
    presence.mark_unavailable("it is gone", clock())
    answer = await freshness.get("a")
    assert answer.stale
    assert answer.age > 1


async def test_forced_refresh_equals_the_disk(farm: Farm, freshness: Freshness) -> None:
    for progress in range(20):
        farm.put("a", progress=progress)
        assert (await freshness.get("a", force=True)).snapshot.job.progress == progress


async def test_forced_refresh_never_joins_a_read_in_progress(
    farm: Farm, freshness: Freshness, root: Root
) -> None:
    farm.put("a", progress=1)
    await freshness.get("a")
    root.release.clear()
    first = asyncio.create_task(freshness.get("a", force=True))
    await until(lambda: root.reads == 2)
    second = asyncio.create_task(freshness.get("a", force=True))
    await until(lambda: root.reads == 3)
    root.release.set()
    await asyncio.gather(first, second)
    assert root.reads == 3


async def test_concurrent_requests_share_one_read(
    farm: Farm, freshness: Freshness, root: Root, clock: Clock
) -> None:
    farm.put("a")
    await freshness.get("a")
    clock.ahead += 2
    await asyncio.gather(*(freshness.get("a") for _ in range(50)))
    assert root.reads == 2


async def test_cancelled_request_does_not_cancel_the_shared_read(
    farm: Farm, freshness: Freshness, root: Root
) -> None:
    farm.put("a")
    root.release.clear()
    first, second = (asyncio.create_task(freshness.get("a")) for _ in range(2))
    await until(lambda: root.reads == 1)
    first.cancel()
    root.release.set()
    assert not (await second).stale


async def test_invalid_job_id_never_reaches_the_disk(freshness: Freshness, root: Root) -> None:
    for name in ("..", "a/b", "", "x" * 200, ".hidden", "a\0b"):
        with pytest.raises(JobNotFound):
            await freshness.get(name)
    assert root.reads == 0


async def test_unknown_ids_are_not_remembered(farm: Farm, freshness: Freshness) -> None:
    farm.put("a")
    for number in range(100):
        with pytest.raises(JobNotFound):
            await freshness.get(f"guess-{number}")
    assert not freshness._reads._reads
    assert not freshness._entries


async def test_bad_record_keeps_the_last_good_snapshot_and_is_reported(
    farm: Farm, freshness: Freshness, bad: list[Any]
) -> None:
    farm.put("a", progress=5)
    await freshness.get("a")
    farm.write_unreadable("a")
    answer = await freshness.get("a", force=True)
    assert (answer.snapshot.job.progress, answer.stale) == (5, False)
    assert [job_id for job_id, _ in bad] == ["a"]


async def test_job_that_never_had_a_valid_record_is_not_found(
    farm: Farm, freshness: Freshness, bad: list[Any]
) -> None:
    farm.write_unreadable("a", b"[]")
    with pytest.raises(JobNotFound):
        await freshness.get("a")
    assert [*freshness._unreadable] == ["a"]
    assert len(bad) == 1


async def test_removed_job_is_not_found(farm: Farm, freshness: Freshness) -> None:
    farm.put("a")
    farm.put("b")
    await freshness.get("a")
    farm.remove("a")
    with pytest.raises(JobNotFound):
        await freshness.get("a", force=True)


@pytest.mark.parametrize("how", ["gone", "empty"])
async def test_missing_or_empty_root_keeps_the_last_known_snapshots(
    farm: Farm, freshness: Freshness, presence: RootCheck, clock: Clock, how: str
) -> None:
    farm.put("a")
    farm.put("b")
    await freshness.get("a")
    await freshness.get("b")
    presence.accept(stat_root(farm.root))
    farm.root.rename(farm.root.with_name("unmounted"))
    if how == "empty":
        farm.root.mkdir()
    clock.ahead += 100
    answer = await freshness.get("a")
    assert answer.stale
    assert answer.age >= 100
    with pytest.raises(StorageUnavailable):
        await freshness.get("never-seen")


async def test_read_after_an_outage_is_trusted_before_the_root_is(
    farm: Farm, freshness: Freshness, presence: RootCheck, clock: Clock
) -> None:
    """The root is checked periodically; a request meanwhile gets what the disk has."""
    for job_id in ("a", "b"):
        farm.put(job_id)
        await freshness.get(job_id)
    presence.accept(stat_root(farm.root))
    presence.mark_unavailable("Input/output error", clock())
    assert (await freshness.get("a")).stale
    assert not (await freshness.get("a", force=True)).stale
    assert not (await freshness.get("a")).stale
    assert (await freshness.get("b")).stale
    farm.remove("b")
    for force in (True, False):
        with pytest.raises(JobNotFound):
            await freshness.get("b", force=force)
    presence.mark_unavailable("Input/output error", clock())
    assert (await freshness.get("a")).stale


async def test_storage_errors_keep_the_last_known_snapshot(
    farm: Farm, freshness: Freshness, root: Root, clock: Clock
) -> None:
    farm.put("a")
    await freshness.get("a")
    root.fault = OSError(5, "Input/output error")
    clock.ahead += 3
    answer = await freshness.get("a")
    assert answer.stale
    assert answer.age >= 3
    with pytest.raises(StorageUnavailable):
        await freshness.get("b")


@pytest.mark.alone
async def test_unresponsive_storage_returns_the_last_known_snapshot_in_time(
    farm: Farm, freshness: Freshness, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOWN_DEADLINE_S", shared_reads.KNOWN_DEADLINE_S)
    farm.put("a")
    await freshness.get("a")
    root.release.clear()
    started_at = time.monotonic()
    assert (await freshness.get("a", force=True)).stale
    assert time.monotonic() - started_at < 2


async def test_heartbeat_without_an_event_counts_as_verification(
    farm: Farm, freshness: Freshness, root: Root, clock: Clock, coverage: WatchCoverage
) -> None:
    farm.put("a")
    coverage.begin(clock())
    await freshness.get("a")
    freshness._entries["a"].last_event_at = coverage.start
    clock.ahead += 10
    coverage.note_heartbeat(clock())
    coverage.note_root_ok(clock())
    assert (await freshness.get("a")).age < 0.5
    assert root.reads == 1


async def test_job_that_cannot_be_watched_completely_is_read_despite_heartbeats(
    farm: Farm, freshness: Freshness, root: Root, clock: Clock, coverage: WatchCoverage
) -> None:
    farm.put("wary")
    coverage.begin(clock())
    await freshness.get("wary")
    freshness._entries["wary"].last_event_at = coverage.start
    assert (await freshness.get("wary")).age < 0.5
    assert root.reads == 1
    clock.ahead += 10
    coverage.note_heartbeat(clock())
    coverage.note_root_ok(clock())
    assert (await freshness.get("wary")).age < 0.5
    assert root.reads == 2


async def test_event_ends_the_coverage_of_its_job(
    farm: Farm, freshness: Freshness, root: Root, clock: Clock, coverage: WatchCoverage
) -> None:
    farm.put("a")
    coverage.begin(clock())
    await freshness.get("a")
    freshness._entries["a"].last_event_at = clock()
    clock.ahead += 10
    coverage.note_heartbeat(clock())
    coverage.note_root_ok(clock())
    await freshness.get("a")
    assert root.reads == 2


@pytest.mark.parametrize("known", [True, False])
async def test_read_that_ends_after_a_removal_does_not_restore_the_job(
    farm: Farm, freshness: Freshness, root: Root, *, known: bool
) -> None:
    farm.put("a")
    farm.put("b")
    if known:
        await freshness.get("a")
    looks = root.seen
    late, root.late = root.late, threading.Event()
    slow = asyncio.create_task(freshness.refresh("a"))
    await until(lambda: root.seen == looks + 1)
    farm.remove("a")
    held, root.late = root.late, late
    with pytest.raises(JobNotFound):
        await freshness.get("a", force=True)
    held.set()
    await slow
    assert freshness.cached("a") is None


async def test_snapshot_read_by_a_request_is_served_from_memory(
    farm: Farm, freshness: Freshness, parts: Parts, root: Root, clock: Clock
) -> None:
    farm.put("a")
    reading = JobsRoot(farm.root).read("a")
    parts.updater.store("a", reading, clock())
    assert (await freshness.get("a")).snapshot is reading
    assert root.reads == 0


async def test_snapshot_read_late_by_a_request_replaces_nothing_newer(
    farm: Farm, freshness: Freshness, parts: Parts, clock: Clock
) -> None:
    farm.put("a", progress=1)
    farm.put("b")
    started_at, old = clock(), JobsRoot(farm.root).read("a")
    farm.put("a", progress=2)
    await freshness.get("a")
    parts.updater.store("a", old, started_at)
    assert (await freshness.get("a")).snapshot.job.progress == 2
    farm.remove("a")
    with pytest.raises(JobNotFound):
        await freshness.get("a", force=True)
    parts.updater.store("a", old, started_at)
    assert freshness.cached("a") is None
