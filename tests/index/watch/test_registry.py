from __future__ import annotations

from math import inf
from typing import Any

import pytest

from jobsvc.domain.outputs import OutputKind
from jobsvc.domain.status_record import parse_record
from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.watch import registry
from jobsvc.index.watch.job_folders import MAX_FOLDERS, Folders, folders_to, folders_to_watch
from jobsvc.index.watch.registry import WatchRegistry
from jobsvc.index.watch.watch_limit import WatchLimit
from jobsvc.index.watch.watch_queue import WatchQueue
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_states import OutputState, pack_states
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until


def make_snapshot(job_id: str, status: str = "rendering", **keys: Any) -> JobSnapshot:
    job = parse_record(job_id, {"status": status, "owner": "ann"} | keys, 0)
    return JobSnapshot(job, FileVersion(1, 1, 1, 1), output=None, is_stable=True)


class RegistryHarness:
    """A WatchRegistry, the batches that it sent, and the jobs whose refresh it requested."""

    def __init__(self, limit: int = 1000, batch: int = 1000) -> None:
        self.catalogue = Catalogue()
        self.sent: list[list[str]] = []
        self.looked: list[str] = []
        self.is_backlogged = False
        self.limit = WatchLimit(limit)
        self.queue = WatchQueue(
            self.catalogue,
            self.limit,
            self.sent.append,
            batch_size=batch,
            is_backlogged=lambda: self.is_backlogged,
        )
        self.watching = WatchRegistry(
            self.catalogue,
            self.limit,
            self.queue,
            refresh_now=self.looked.extend,
            refresh_later=self.looked.extend,
        )
        self.watching.deferred = False

    async def wait_for_batches(self, batches: int) -> None:
        """Wait until this many batches were sent."""
        await until(lambda: len(self.sent) >= batches)

    def put(self, job_id: str, moment: float = 1, **keys: Any) -> Entry:
        self.catalogue.put(job_id, make_snapshot(job_id, **keys), moment)
        entry = self.catalogue.entries[job_id]
        self.watching.ensure_watched(job_id, entry)
        return entry


@pytest.fixture
async def harness() -> RegistryHarness:
    return RegistryHarness()


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        ("film.mp4", ()),
        ("output/film.mp4", ("output",)),
        ("a/b/film.mp4", ("a", "a/b")),
        ("a/b/c/d/film.mp4", None),
        ("/renders/film.mp4", None),
        ("../film.mp4", ()),
        ("", ()),
    ],
)
def test_folders_of_an_output_are_those_whose_change_could_hide_it(path: str, folders: Any) -> None:
    assert folders_to(path) == folders


def folders_of(outputs: dict[str, OutputKind | None]) -> Folders | None:
    """Return the folders to watch for a job with outputs of these kinds at these paths."""
    entries = [{"name": f"o{number}", "path": path} for number, path in enumerate(outputs)]
    known = make_snapshot("a", "completed", outputs=entries)
    version = FileVersion(1, 1, 1, 1)
    states = [None if kind is None else OutputState(kind, version) for kind in outputs.values()]
    packed = pack_states(known.job.outputs, states)
    return folders_to_watch(JobSnapshot(known.job, b"", None, is_stable=True, outputs=packed))


def test_folders_of_all_outputs_are_watched_once() -> None:
    paths = {
        "out/film.mp4": OutputKind.FILE,
        "out/beauty/a.####.exr": OutputKind.SEQUENCE,
        "preview.mp4": None,
    }
    assert folders_of(paths) == ("out", "out/beauty")


def test_directory_that_is_an_output_is_watched_too() -> None:
    assert folders_of({"out/passes/": OutputKind.DIRECTORY}) == ("out", "out/passes")
    assert folders_of({"out/passes/": None}) == ("out",)


def test_job_is_not_watched_if_one_of_its_outputs_cannot_be() -> None:
    assert folders_of({"out/film.mp4": OutputKind.FILE, "/renders/a.exr": OutputKind.FILE}) is None
    assert folders_of({"a/b/c": OutputKind.DIRECTORY}) == ("a", "a/b", "a/b/c")
    assert folders_of({"a/b/c/d": OutputKind.DIRECTORY}) is None


def test_job_with_outputs_in_too_many_folders_is_not_watched() -> None:
    paths: dict[str, OutputKind | None] = {
        f"{number}/a.exr": OutputKind.FILE for number in range(MAX_FOLDERS)
    }
    assert len(folders_of(paths) or ()) == MAX_FOLDERS
    assert folders_of({**paths, "more/a.exr": OutputKind.FILE}) is None


async def test_unfinished_jobs_are_watched_before_finished_ones(harness: RegistryHarness) -> None:
    harness.put("done", status="failed")
    harness.put("queued", status="queued")
    harness.watching.start()
    await until(lambda: harness.sent)
    assert harness.sent == [["queued", "done"]]


async def test_nothing_is_covered_before_its_watch_is_active(harness: RegistryHarness) -> None:
    harness.watching.start()
    entry = harness.put("a")
    await until(lambda: harness.sent)
    assert entry.last_event_at == inf
    harness.watching.batch_watched(1)
    assert entry.last_event_at < inf
    assert harness.looked == ["a"]
    assert harness.limit.used == 1


async def test_completed_job_is_watched_with_the_folders_of_its_output(harness: RegistryHarness) -> None:
    harness.watching.start()
    harness.put("a")
    await until(lambda: harness.sent)
    harness.watching.batch_watched(1)
    entry = harness.put("a", 2, status="completed", outputPath="output/film.mp4")
    assert entry.last_event_at == inf
    await until(lambda: len(harness.sent) == 2)
    harness.watching.batch_watched(2)
    assert harness.sent[1] == ["a", "a/output"]
    assert entry.watched_folders == ("output",)
    assert harness.limit.used == 2


async def test_added_or_removed_folder_is_watched_again(harness: RegistryHarness) -> None:
    harness.watching.start()
    entry = harness.put("a", status="completed", outputPath="output/film.mp4")
    await until(lambda: harness.sent)
    harness.watching.moved("a", "output")
    harness.watching.batch_watched(1)
    assert not harness.watching.knows("a")
    harness.watching.ensure_watched("a", entry)
    await until(lambda: len(harness.sent) == 2)
    harness.watching.batch_watched(2)
    harness.watching.moved("a", "other")
    assert entry.watched_folders == ("output",)
    harness.watching.moved("a", "output")
    assert [entry.watched_folders, entry.last_event_at, harness.limit.used] == [(), inf, 1]


async def test_output_that_cannot_be_watched_is_never_covered(harness: RegistryHarness) -> None:
    harness.watching.start()
    entry = harness.put("a", status="completed", outputPath="/renders/film.mp4")
    assert entry.last_event_at == inf


async def test_new_directory_is_watched_before_it_contains_a_job(harness: RegistryHarness) -> None:
    harness.watching.start()
    harness.watching.job_added("a")
    assert harness.watching.knows("a")
    await until(lambda: harness.sent)
    assert harness.watching.knows("a")
    harness.watching.batch_watched(1)
    assert harness.looked == ["a"]
    entry = harness.put("a")
    assert entry.watched_folders == ()
    assert harness.looked == ["a", "a"]
    assert entry.verified_at < entry.last_event_at < inf


async def test_directory_removed_while_its_watch_was_set_up_is_not_covered(harness: RegistryHarness) -> None:
    harness.watching.start()
    entry = harness.put("a")
    await until(lambda: harness.sent)
    harness.watching.job_removed("a")
    harness.watching.batch_watched(1)
    assert (entry.watched_folders, entry.last_event_at) == (None, inf)


async def test_finished_jobs_leave_watches_for_new_ones() -> None:
    harness = RegistryHarness(limit=10)
    for number in range(20):
        harness.put(f"done-{number}", status="failed")
    harness.watching.start()
    await until(lambda: harness.sent)
    assert len(harness.sent[0]) == 9
    assert harness.limit.reached
    harness.watching.batch_watched(1)
    harness.watching.job_added("new")
    await until(lambda: len(harness.sent) == 2)
    assert harness.sent[1] == ["new"]


async def test_limit_is_reached_after_a_refusal(harness: RegistryHarness) -> None:
    harness.watching.start()
    harness.put("a")
    await until(lambda: harness.sent)
    harness.watching.limit_was_reached(1)
    assert (harness.limit.reached, harness.limit.maximum) == (True, 0)


async def test_unwatchable_job_is_skipped_until_it_changes(harness: RegistryHarness) -> None:
    harness.watching.start()
    entry = harness.put("a")
    await until(lambda: harness.sent)
    harness.watching.batch_watched(1)
    harness.watching.unwatchable("a")
    harness.watching.ensure_watched("a", entry)
    assert entry.last_event_at == inf
    assert harness.watching.knows("a")
    assert not harness.queue.queued
    harness.watching.job_added("a")
    assert "a" in harness.queue.queued


async def test_nothing_is_covered_after_the_watcher_ended(harness: RegistryHarness) -> None:
    harness.watching.start()
    entry = harness.put("a")
    await until(lambda: harness.sent)
    harness.watching.batch_watched(1)
    harness.watching.stop()
    assert (entry.watched_folders, entry.last_event_at, harness.limit.used) == (None, inf, 0)
    harness.watching.ensure_watched("a", entry)
    assert not harness.queue.queued


async def test_deferred_watches_wait_for_a_refresh_backlog() -> None:
    harness = RegistryHarness()
    harness.put("old")
    harness.is_backlogged = True
    harness.watching.start()
    harness.watching.job_added("new")
    await until(lambda: harness.sent)
    assert harness.sent == [["new"]]
    harness.watching.batch_watched(1)
    harness.is_backlogged = False
    harness.queue.flush_soon()
    await until(lambda: len(harness.sent) == 2)
    assert harness.sent[1] == ["old"]


async def test_one_batch_is_sent_at_a_time() -> None:
    harness = RegistryHarness(batch=8)
    for number in range(9):
        harness.put(f"job-{number}")
    harness.watching.start()
    await until(lambda: harness.sent)
    assert 1 <= len(harness.sent[0]) <= 8
    while sum(map(len, harness.sent)) < 9:
        number = len(harness.sent)
        harness.watching.batch_watched(number)
        await harness.wait_for_batches(number + 1)
    assert sorted(job_id for batch in harness.sent for job_id in batch) == [f"job-{n}" for n in range(9)]


async def test_job_added_during_the_backlog_is_watched_after_it() -> None:
    harness = RegistryHarness(batch=4)
    for number in range(3):
        harness.put(f"job-{number}")
    harness.watching.start()
    await until(lambda: harness.sent)
    entry = harness.put("late")
    assert entry.last_event_at == inf
    for number in (1, 2, 3, 4):
        await harness.wait_for_batches(number)
        harness.watching.batch_watched(number)
    assert entry.watched_folders == ()
    assert harness.limit.used == 4


async def partly_watched(monkeypatch: pytest.MonkeyPatch) -> RegistryHarness:
    """Have five jobs watched, and the results of two of them applied."""
    monkeypatch.setattr(registry, "JOBS_PER_ITERATION", 2)
    harness = RegistryHarness()
    for number in range(5):
        harness.put(f"job-{number}")
    harness.watching.start()
    await harness.wait_for_batches(1)
    harness.watching.batch_watched(1)
    assert harness.limit.used == 2
    return harness


async def test_large_batch_is_applied_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = await partly_watched(monkeypatch)
    await until(lambda: harness.limit.used == 5)
    assert sorted(harness.looked) == [f"job-{number}" for number in range(5)]


async def test_rest_of_a_batch_is_not_applied_after_the_watcher_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = await partly_watched(monkeypatch)
    harness.watching.start()
    await harness.wait_for_batches(2)
    assert harness.limit.used == 0
    assert all(entry.watched_folders is None for entry in harness.catalogue.entries.values())
