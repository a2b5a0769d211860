"""Changes of an owner's jobs as feed readers see them, compared with a model that sees everything
immediately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobsvc.domain.job import Status
from jobsvc.domain.status_record import parse_record
from jobsvc.index.catalogue.change_journal import ChangeJournal
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.queries.change_feed import ChangeFeed, FeedOverrun, FeedReader
from jobsvc.index.queries.subscriptions import CALLS_PER_ITERATION, Subscriptions
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until

OWNERS = ("anna", "bob")
JOBS = ("a", "b", "c")
IDENTITY = FileVersion(1, 2, 3, 4)
FILTERS = [(), (Status.RENDERING,), (Status.COMPLETED, Status.FAILED, Status.CANCELED)]


def make_snapshot(job_id: str, owner: str, status: str = "queued", progress: int = 0) -> JobSnapshot:
    record = {"status": status, "owner": owner, "progress": progress, "createdAt": "2026-01-01T00:00:00Z"}
    return JobSnapshot(parse_record(job_id, record, 0), IDENTITY, output=None, is_stable=True)


class Farm:
    """A catalogue that a test changes, and the feeds over it."""

    def __init__(self, kept: int = 1000) -> None:
        self.catalogue = Catalogue()
        journal = ChangeJournal(self.catalogue)
        self.feeds = {owner: ChangeFeed(self.catalogue, journal, owner, kept) for owner in (*OWNERS, None)}
        self.ever: dict[str | None, set[str]] = {owner: set() for owner in self.feeds}
        """Jobs that belonged to an owner at any time."""
        self.moment = 0.0
        self.catalogue.subscribe(self._changed)

    def put(self, job_id: str, owner: str, status: str = "queued", progress: int = 0) -> None:
        self.moment += 1
        self.catalogue.put(job_id, make_snapshot(job_id, owner, status, progress), self.moment)

    def remove(self, job_id: str) -> None:
        self.moment += 1
        self.catalogue.remove(job_id, self.moment)

    def _changed(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        for owner in {None, *(one.job.owner for one in (before, after) if one is not None)}:
            self.feeds[owner].add(job_id, before)
            self.ever[owner].add(job_id)


class Reader:
    """A client that tracks which jobs it was sent, and their states."""

    def __init__(self, feed: ChangeFeed, statuses: tuple[Status, ...], ever_theirs: set[str]) -> None:
        self.feed = feed
        self.ever_theirs = ever_theirs
        """Jobs that belonged to its owner at any time."""
        self.statuses = statuses or tuple(Status)
        self.known: dict[str, JobSnapshot] = {}
        self.begin()

    def begin(self) -> None:
        """Read all jobs, and forget those that are not among them."""
        self.reader = FeedReader(self.feed, self.statuses)
        self.position = self.reader.position
        entries = self.feed._catalogue.entries
        self.known = {
            job_id: entry.snapshot for job_id, entry in entries.items() if self.in_view(entry.snapshot)
        }

    def in_view(self, snapshot: JobSnapshot) -> bool:
        return self.feed.owner in {None, snapshot.job.owner} and snapshot.job.status in self.statuses

    def read(self, count: int) -> None:
        for _ in range(count):
            try:
                event = self.reader.next()
            except FeedOverrun:
                self.begin()
                return
            if event is None:
                return
            self.position = self.reader.mark.position
            if event.snapshot is None:
                assert event.job_id in self.ever_theirs, "received a job that never belonged to its owner"
                self.known.pop(event.job_id, None)
            else:
                assert self.in_view(event.snapshot), "received a job that its filter excludes"
                self.known[event.job_id] = event.snapshot

    def resume(self) -> None:
        """Continue over a new connection at the last position."""
        if self.feed.has_all_from(self.position):
            self.reader = FeedReader(self.feed, self.statuses, self.position)
        else:
            self.begin()


class Following(RuleBasedStateMachine):
    """Whatever happens to jobs and their owners, each reader that keeps reading knows its
    jobs as they are.
    """

    @initialize(kept=st.integers(2, 30))
    def begin(self, kept: int) -> None:
        self.farm = Farm(kept)
        self.readers = [
            Reader(feed, statuses, self.farm.ever[owner])
            for owner, feed in self.farm.feeds.items()
            for statuses in FILTERS
        ]

    @rule(
        job_id=st.sampled_from(JOBS),
        owner=st.sampled_from(OWNERS),
        status=st.sampled_from(Status),
        progress=st.integers(0, 3),
    )
    def change(self, job_id: str, owner: str, status: Status, progress: int) -> None:
        self.farm.put(job_id, owner, status.value, progress)

    @rule(job_id=st.sampled_from(JOBS))
    def remove(self, job_id: str) -> None:
        self.farm.remove(job_id)

    @rule(which=st.integers(0, 8), count=st.integers(1, 4))
    def read(self, which: int, count: int) -> None:
        self.readers[which].read(count)

    @rule(which=st.integers(0, 8))
    def resume(self, which: int) -> None:
        self.readers[which].resume()

    @rule()
    def all_read_on(self) -> None:
        entries = self.farm.catalogue.entries
        for reader in self.readers:
            reader.read(1000)
            assert reader.known == {
                job_id: entry.snapshot for job_id, entry in entries.items() if reader.in_view(entry.snapshot)
            }

    @invariant()
    def memory_is_bounded(self) -> None:
        for feed in getattr(self, "farm", Farm()).feeds.values():
            assert len(feed._changes) <= feed._max_changes
            assert set(feed._newest.values()) <= set(range(feed._first, feed.end))


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def steps(feed_reader: FeedReader) -> list[tuple[str, float | None]]:
    sent = []
    while (event := feed_reader.next()) is not None:
        sent.append((event.job_id, None if event.snapshot is None else event.snapshot.job.progress))
    return sent


def test_newest_state_of_each_job_is_sent_and_skipped_changes_are_counted() -> None:
    farm = Farm()
    feed_reader = FeedReader(farm.feeds["anna"])
    for progress in range(1, 51):
        farm.put("a", "anna", "rendering", progress)
        farm.put("b", "anna", "rendering", 2 * progress)
    farm.put("a", "anna", "completed")
    assert steps(feed_reader) == [("b", 100), ("a", 100)]
    assert feed_reader.coalesced == 99


def test_job_that_changes_constantly_delays_no_other() -> None:
    farm = Farm()
    feed_reader = FeedReader(farm.feeds["anna"])
    farm.put("b", "anna")
    for progress in range(1, 20):
        farm.put("a", "anna", "rendering", progress)
    assert feed_reader.next() is not None
    farm.put("a", "anna", "rendering", 20)
    assert steps(feed_reader) == [("a", 20)]


def test_job_that_changes_its_owner_is_removed_for_one_and_new_for_the_other() -> None:
    farm = Farm()
    farm.put("a", "anna", "rendering", 1)
    views = {owner: FeedReader(feed) for owner, feed in farm.feeds.items()}
    farm.put("a", "bob", "rendering", 2)
    farm.put("a", "bob", "rendering", 3)
    assert steps(views["anna"]) == [("a", None)]
    assert steps(views["bob"]) == [("a", 3)]
    assert steps(views[None]) == [("a", 3)]


def test_reader_that_resumes_between_coalesced_changes_misses_nothing() -> None:
    farm = Farm()
    feed = farm.feeds["anna"]
    farm.put("a", "anna", "rendering")
    feed_reader = FeedReader(feed, [Status.RENDERING])
    farm.put("a", "anna", "queued")
    farm.put("b", "anna", "rendering", 5)
    farm.put("a", "anna", "failed")
    sent = feed_reader.next()
    assert sent is not None
    assert sent.job_id == "b"
    assert ("a", None) in steps(FeedReader(feed, [Status.RENDERING], feed_reader.mark.position))
    assert steps(feed_reader) == [("a", None)]


def test_reader_behind_the_oldest_change_gets_an_overrun() -> None:
    farm = Farm(kept=4)
    feed_reader = FeedReader(farm.feeds["anna"])
    for progress in range(10):
        farm.put("a", "anna", "rendering", progress)
    with pytest.raises(FeedOverrun):
        feed_reader.next()
    assert not farm.feeds["anna"].has_all_from(0)
    assert not farm.feeds["anna"].has_all_from(farm.feeds["anna"].end + 1)


def test_positions_of_one_feed_are_invalid_in_another() -> None:
    farm = Farm()
    assert len({feed.epoch for feed in farm.feeds.values()}) == 3


@settings(deadline=None)
@given(st.integers(0, 200))
async def test_all_waiting_readers_are_woken_once_and_a_bounded_number_per_iteration(count: int) -> None:
    catalogue = Catalogue()
    changes = Subscriptions(catalogue, ChangeJournal(catalogue))
    woken: list[int] = []

    def wake(number: int) -> Callable[[], None]:
        return lambda: woken.append(number)

    wakes = [wake(number) for number in range(count)]
    changes.notify(wakes)
    changes.notify(wakes[CALLS_PER_ITERATION:])
    while len(woken) < count:
        before = len(woken)
        assert before <= count
        await asyncio.sleep(0)
        assert len(woken) - before <= CALLS_PER_ITERATION
    await asyncio.sleep(0)
    assert sorted(woken) == list(range(count))


async def test_only_readers_of_the_job_or_its_owner_are_woken() -> None:
    catalogue = Catalogue()
    changes = Subscriptions(catalogue, ChangeJournal(catalogue))
    woken: list[str] = []
    with (
        changes.subscribe_job("a", lambda: woken.append("job a")),
        changes.subscribe_job("b", lambda: woken.append("job b")),
        changes.subscribe_owner("anna", lambda: woken.append("anna")),
        changes.subscribe_owner("bob", lambda: woken.append("bob")),
        changes.subscribe_owner(None, lambda: woken.append("all")),
    ):
        catalogue.put("a", make_snapshot("a", "anna"), 1)
        assert sorted(woken) == ["all", "anna", "job a"]
        woken.clear()
        catalogue.put("a", make_snapshot("a", "bob"), 2)
        assert sorted(woken) == ["all", "anna", "bob", "job a"]
    woken.clear()
    catalogue.remove("a", 3)
    assert woken == []
    assert not changes._by_job


async def test_feed_is_kept_for_a_while_after_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.index.queries.subscriptions.KEEP_FEED_S", 0.02)
    catalogue = Catalogue()
    changes = Subscriptions(catalogue, ChangeJournal(catalogue))

    def wake() -> None:
        """Nothing."""

    with changes.subscribe_owner("anna", wake) as first:
        pass
    catalogue.put("a", make_snapshot("a", "anna"), 1)
    with changes.subscribe_owner("anna", wake) as second:
        assert second is first
        assert second.end == 1
        await asyncio.sleep(0.03)
        with changes.subscribe_owner("anna", wake) as third:
            assert third is first
    await until(lambda: not changes._feeds)
    with changes.subscribe_owner("anna", wake) as fourth:
        assert fourth.epoch != first.epoch
