"""Jobs that are added, removed or replaced without watcher events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.catalogue.entries import Entry
from jobsvc.index.job_index import JobIndex
from jobsvc.index.scan.listing_comparison import compare_names
from jobsvc.index.scan.root_names import ListingSchedule
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootListing, RootVersion, list_root
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until
from tests.index.job_dirs import Farm
from tests.index.parts import make_index

VERSION = RootVersion(1, 2, 1_000, 1_000, 3, 4096)
LATER = VERSION._replace(mtime_ns=2_000)


def listed(*, is_stable: bool = True, seconds: float = 0.0, cpu: float = 0.0) -> ListingSchedule:
    schedule = ListingSchedule()
    schedule.start()
    schedule.listed(RootListing({}, 0, VERSION, is_stable), 100.0, seconds, cpu)
    return schedule


def test_root_that_was_never_listed_is_due() -> None:
    assert ListingSchedule().is_due(VERSION, 100.0, trusted=True)


def test_unchanged_root_with_trusted_timestamps_is_not_listed_again() -> None:
    assert not listed().is_due(VERSION, 1000.0, trusted=True)


@pytest.mark.parametrize("field", RootVersion._fields)
def test_root_with_any_difference_is_listed_again(field: str) -> None:
    assert listed().is_due(VERSION._replace(**{field: 7}), 100.0, trusted=True)


def test_root_with_recent_timestamps_at_its_listing_is_listed_again() -> None:
    assert listed(is_stable=False).is_due(VERSION, 100.0, trusted=True)


def test_unchanged_root_with_untrusted_timestamps_is_listed_for_a_twentieth_of_the_time() -> None:
    schedule = listed(seconds=1.0)
    assert not schedule.is_due(VERSION, 119.9, trusted=False)
    assert schedule.is_due(VERSION, 120.1, trusted=False)


def test_changed_root_is_listed_again_sooner_than_an_unchanged_one() -> None:
    schedule = listed(seconds=1.0)
    assert not schedule.is_due(LATER, 101.9, trusted=False)
    assert schedule.is_due(LATER, 102.1, trusted=False)


def test_listings_take_no_more_than_their_share_of_the_cpu() -> None:
    schedule = listed(cpu=0.1)
    assert not schedule.is_due(LATER, 104.9, trusted=False)
    assert schedule.is_due(LATER, 105.1, trusted=False)


def test_request_during_a_listing_is_not_lost() -> None:
    schedule = ListingSchedule()
    schedule.start()
    schedule.request()
    schedule.listed(RootListing({}, 0, VERSION, is_stable=True), 100.0, 0.0, 0.0)
    assert schedule.is_due(VERSION, 100.0, trusted=True)


def test_listing_just_after_a_change_is_not_stable(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / ".hidden").mkdir()
    listing = list_root(tmp_path)
    assert listing.inodes == {"a": (tmp_path / "a").stat().st_ino}
    assert listing.ignored == 1
    assert not listing.is_stable


def test_names_are_compared_with_the_catalogue(farm: Farm) -> None:
    snapshot: JobSnapshot = JobsRoot(farm.put("same").parent).read("same")
    known = {name: Entry(snapshot, 0.0) for name in ("same", "replaced", "missing", "unlisted-yet")}
    known["same"].inode, known["replaced"].inode, known["missing"].inode = 1, 2, 3
    inodes = {"same": 1, "replaced": 20, "unlisted-yet": 4, "new": 5, "no-job": 6, "no-job-before": 7}
    changes = compare_names(inodes, known, {"no-job": 6, "no-job-before": 70})
    assert changes == (["new", "no-job-before"], ["missing"], ["replaced"])
    assert known["unlisted-yet"].inode == 4


@pytest.fixture
async def polled(farm: Farm, disk: StorageExecutor) -> AsyncIterator[JobIndex]:
    """An index without a watcher; no reconcile runs during a test."""
    for number in range(3):
        farm.put(f"old-{number}", "completed")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.POLL, poll_interval=0.1, max_age=0.5)
    index._reconciler._is_watched = lambda: True  # by names alone
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 10)
        await until(lambda: all(entry.inode is not None for entry in index.catalogue.entries.values()))
        yield index


async def test_new_job_is_found_by_its_name(farm: Farm, polled: JobIndex) -> None:
    farm.put("new", "completed")
    await until(lambda: polled.catalogue.get("new"))


async def test_job_moved_in_is_found_by_its_name(farm: Farm, polled: JobIndex, tmp_path: Path) -> None:
    prepared = Farm(tmp_path / "elsewhere").put("prepared", "completed")
    prepared.rename(farm.root / "moved-in")
    await until(lambda: polled.catalogue.get("moved-in"))


async def test_removed_finished_job_is_noticed_by_its_missing_name(farm: Farm, polled: JobIndex) -> None:
    farm.remove("old-1")
    await until(lambda: polled.catalogue.get("old-1") is None)
    assert polled.catalogue.get("old-0") is not None


async def test_renamed_job_is_known_only_by_its_new_name(farm: Farm, polled: JobIndex) -> None:
    (farm.root / "old-1").rename(farm.root / "renamed")
    await until(lambda: polled.catalogue.get("old-1") is None and polled.catalogue.get("renamed"))


async def test_job_recreated_with_another_inode_is_read(farm: Farm, polled: JobIndex, tmp_path: Path) -> None:
    successor = Farm(tmp_path / "elsewhere").put("successor", "rendering", progress=7)
    farm.remove("old-1")
    successor.rename(farm.root / "old-1")

    def progress() -> float:
        entry = polled.catalogue.get("old-1")
        return -1 if entry is None else entry.snapshot.job.progress

    await until(lambda: progress() == 7)


async def test_record_written_long_after_its_directory_is_found(farm: Farm, polled: JobIndex) -> None:
    (farm.root / "slow").mkdir()
    await until(lambda: polled._root_names.to_poll() == ["slow"])
    farm.put("slow")
    await until(lambda: polled.catalogue.get("slow"))
    assert polled._root_names.to_poll() == []


async def test_record_that_was_deleted_and_restored_is_found(farm: Farm, polled: JobIndex) -> None:
    farm.put("old-3", "queued")
    await until(lambda: polled.catalogue.get("old-3"))
    (farm.root / "old-3" / "status.json").unlink()
    await until(lambda: polled.catalogue.get("old-3") is None, 10)
    farm.put("old-3", "queued")
    await until(lambda: polled.catalogue.get("old-3"))


async def test_changed_finished_job_is_found_without_a_watcher(farm: Farm, disk: StorageExecutor) -> None:
    farm.put("job", "completed")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.POLL, poll_interval=0.1)
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 10)
        farm.put("job", "rendering", progress=5)
        await until(lambda: index.catalogue.entries["job"].snapshot.job.progress == 5)


async def test_names_are_not_listed_while_a_watcher_reports_changes(
    farm: Farm, disk: StorageExecutor
) -> None:
    farm.put("job")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.EVENTS, poll_interval=0.05)
    async with index.running():
        await until(lambda: index.is_covered, 20)
        assert not index._is_listing_needed()
