from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobsvc.domain.job import Job
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.job_index import JobIndex
from jobsvc.index.queries.log_tail_cache import LogTailCache
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from tests.eventually import until
from tests.index.job_dirs import Farm
from tests.index.parts import Parts


class Clock:
    """Monotonic seconds that advance only when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Root(JobsRoot):
    """A real root that counts reads of logs, and can make them fail."""

    reads = 0
    fault: OSError | None = None

    def log_tail(self, job: Job, limit: int = 1 << 16) -> str | None:
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        return super().log_tail(job, limit)


class Scene:
    """A failed job with a log, its catalogue and cache, on a clock of its own."""

    def __init__(self, farm: Farm, disk: StorageExecutor, cap: int = 1 << 20) -> None:
        self.farm = farm
        self.clock = Clock()
        self.root = Root(farm.root)
        parts = Parts(disk, self.root, clock=self.clock)
        self.coverage = parts.coverage
        self.catalogue = parts.catalogue
        self.updater = parts.updater
        self.freshness = parts.freshness
        self.tails = LogTailCache(disk, self.root, self.freshness, clock=self.clock, cap=cap)

    def fail(self, job_id: str = "a", log: str = "one\n", **keys: str) -> Path:
        folder = self.farm.put(job_id, "failed", **keys)
        path = folder / keys.get("logPath", "render.log")
        path.parent.mkdir(exist_ok=True)
        path.write_text(log)
        return path

    def watch(self, job_id: str = "a") -> None:
        """Mark the job as watched for a long time, by a watcher that has just sent a heartbeat."""
        self.catalogue.entries[job_id].last_event_at = 0
        self.coverage.begin(0)
        self.send_heartbeat()

    def send_heartbeat(self) -> None:
        self.coverage.note_heartbeat(self.clock.now)
        self.coverage.note_root_ok(self.clock.now)

    async def ask(self, job_id: str = "a", *, force: bool = False) -> tuple[str | None, float, bool]:
        answer, text = await self.tails.with_tail(await self.freshness.get(job_id), force=force)
        return text, answer.age, answer.stale


@pytest.fixture
def scene(farm: Farm, disk: StorageExecutor) -> Scene:
    return Scene(farm, disk)


async def test_log_is_read_once_within_max_age(scene: Scene) -> None:
    scene.fail()
    assert [await scene.ask() for _ in range(3)] == [("one\n", 0, False)] * 3
    assert scene.root.reads == 1


async def test_age_is_that_of_the_older_of_job_and_log(scene: Scene) -> None:
    scene.fail()
    await scene.ask()
    scene.clock.now += 0.5
    scene.updater.store("a", (await scene.freshness.get("a")).snapshot, scene.clock.now)
    assert await scene.ask() == ("one\n", 0.5, False)


async def test_log_older_than_max_age_is_read_again_without_a_watch(scene: Scene) -> None:
    path = scene.fail()
    await scene.ask()
    path.write_text("one\ntwo\n")
    scene.clock.now += 1.1
    assert await scene.ask() == ("one\ntwo\n", 0, False)


async def test_log_is_cached_under_a_healthy_watch_until_an_event(scene: Scene) -> None:
    path = scene.fail()
    await scene.ask()
    scene.watch()
    for _ in range(5):
        scene.clock.now += 10
        scene.send_heartbeat()
        assert await scene.ask() == ("one\n", 0, False)
    assert scene.root.reads == 1
    path.write_text("two\n")
    scene.clock.now += 1
    scene.catalogue.entries["a"].last_event_at = scene.clock.now
    assert (await scene.ask())[0] == "two\n"


async def test_log_outside_the_watched_directories_is_read_again(scene: Scene) -> None:
    path = scene.fail(logPath="logs/blender.log")
    await scene.ask()
    scene.watch()
    path.write_text("two\n")
    scene.clock.now += 1.1
    scene.send_heartbeat()
    assert await scene.ask() == ("two\n", 0, False)


async def test_forced_refresh_reads_the_log(scene: Scene) -> None:
    path = scene.fail()
    await scene.ask()
    path.write_text("two\n")
    assert (await scene.ask(force=True))[0] == "two\n"


async def test_new_record_has_its_own_log(scene: Scene) -> None:
    scene.fail()
    await scene.ask()
    scene.fail(log="other\n", logPath="other.log")
    scene.clock.now += 1.1
    assert (await scene.ask())[0] == "other\n"


async def test_missing_log_is_cached(scene: Scene) -> None:
    scene.fail().unlink()
    assert [await scene.ask() for _ in range(3)] == [(None, 0, False)] * 3
    assert scene.root.reads == 1


async def test_last_log_is_kept_and_stale_while_storage_does_not_respond(scene: Scene) -> None:
    scene.fail("a")
    scene.fail("never-asked-for")
    await scene.ask("a")
    await scene.freshness.get("never-asked-for")
    scene.clock.now += 0.75
    scene.root.fault = OSError(errno.EIO, os.strerror(errno.EIO))
    assert await scene.ask("a") == ("one\n", 0.75, False)
    assert await scene.ask("a", force=True) == ("one\n", 0.75, True)
    assert await scene.ask("never-asked-for") == (None, 0.75, True)


async def test_cache_is_bounded_and_evicts_the_least_recently_used(farm: Farm, disk: StorageExecutor) -> None:
    scene = Scene(farm, disk, cap=3000)
    for name in ("a", "b", "c"):
        scene.fail(name, "x" * 487 + "\n")  # three weigh 3000
    for name in ("a", "b", "c", "a"):
        await scene.ask(name)
    assert scene.root.reads == 3
    scene.fail("d", "x" * 487 + "\n")
    for name in ("d", "a", "c", "b"):
        await scene.ask(name)
    assert scene.root.reads == 5


@pytest.mark.parametrize("index", [WatchMode.EVENTS], indirect=True)
async def test_growing_log_is_noticed(farm: Farm, index: JobIndex) -> None:
    folder = farm.put("a", "failed")
    log = folder / "render.log"
    log.write_text("one\n")

    async def ask() -> str | None:
        return (await index.log_tails.with_tail(await index.freshness.get("a")))[1]

    assert await ask() == "one\n"
    entry = index.catalogue.entries["a"]
    await until(lambda: entry.last_event_at < entry.verified_at < index._coverage.valid_until, 10)
    assert await ask() == "one\n"
    index.freshness.max_age = 3600  # from now on it is read again only after an event
    with log.open("a") as more:
        more.write("two\n")
    heard = entry.last_event_at
    await until(lambda: entry.last_event_at > heard)
    assert await ask() == "one\ntwo\n"
