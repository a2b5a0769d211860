"""Clients that move between replicas; each of these sees the changes on storage later, by another clock."""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

import pytest

from jobsvc.domain.job import Status
from jobsvc.domain.status_record import parse_record
from jobsvc.index.catalogue.change_journal import MARGIN_S, ChangeJournal
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.queries.change_feed import ChangeFeed, FeedMark, FeedOverrun, FeedReader
from jobsvc.index.queries.moved_reader import MovedReader
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot

RUNS: Final = 300
"""Random sequences of a test."""
JOBS = ("a", "b", "c")
UNFINISHED = (Status.QUEUED, Status.RENDERING)
FILTERS = [tuple(Status), UNFINISHED, (Status.COMPLETED,)]
HIDDEN_S = 55
"""Seconds for which a change may remain hidden from a replica, at most; and CLOCK_S: less than MARGIN_S."""
CLOCK_S = 30
"""Seconds by which the clocks of two replicas differ, at most."""


class Record(NamedTuple):
    """A record on the storage."""

    status: Status
    version: int

    def snapshot(self, job_id: str) -> JobSnapshot:
        record = {"status": self.status.value, "owner": "anna", "createdAt": "2026-01-01T00:00:00Z"}
        record["updatedAt"] = "2026-01-01T00:00:00Z"  # so that an equal status is an equal job
        version = FileVersion(1, self.version, 3, self.version)
        return JobSnapshot(parse_record(job_id, record, 0), version, output=None, is_stable=True)


class Storage:
    """The records, and since when each job has had which; the time is in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.versions = 0
        self.history: dict[str, list[tuple[float, Record | None]]] = {job_id: [] for job_id in JOBS}

    def write(self, job_id: str, status: Status | None) -> None:
        self.versions += 1
        record = None if status is None else Record(status, self.versions)
        self.history[job_id].append((self.now, record))

    def seen_at(self, job_id: str, moment: float) -> Record | None:
        """Return the record that a job had at a moment."""
        records = [record for since, record in self.history[job_id] if since <= moment]
        return records[-1] if records else None


class Replica:
    """An index that reads the storage by hand; its clock and what it sees differ from the other's."""

    def __init__(self, storage: Storage, clock_error: float, hidden_s: float, kept: int) -> None:
        self.storage = storage
        self.hidden_s = hidden_s
        self.clock_error = clock_error
        self.catalogue = Catalogue()
        self.journal = ChangeJournal(
            self.catalogue, kept, clock=lambda: storage.now - 500, wall_clock=self.wall_time
        )
        self.start_feed(kept)
        self.catalogue.subscribe(lambda job_id, before, _after: self.feed.add(job_id, before))
        self.reconcile()

    def wall_time(self) -> float:
        return self.storage.now + self.clock_error

    def start_feed(self, kept: int) -> None:
        """Start a feed with another numbering, as after a time without readers."""
        self.feed = ChangeFeed(self.catalogue, self.journal, "anna", kept)

    def read(self, job_id: str) -> None:
        record = self.storage.seen_at(job_id, self.storage.now - self.hidden_s)
        if record is None:
            self.catalogue.remove(job_id, self.storage.now)
        else:
            self.catalogue.put(job_id, record.snapshot(job_id), self.storage.now)

    def reconcile(self) -> None:
        started_at = self.wall_time()
        for job_id in JOBS:
            self.read(job_id)
            self.storage.now += 1
        self.journal.note_reconciled(started_at, found_all=True)


class Client:
    """A client of all jobs in some states: what it knows, and where it goes on."""

    def __init__(self, replica: Replica, statuses: tuple[Status, ...]) -> None:
        self.statuses = statuses
        self.mark: FeedMark | None = None
        self.lists = 0
        """How often it was sent all jobs."""
        self.moves = 0
        self.known: dict[str, Status] = {}
        self.connect(replica)

    def connect(self, replica: Replica) -> None:
        self.replica = replica
        self.moves += 1
        feed = replica.feed
        try:
            if self.mark is None:
                self.list_all()
            elif self.mark.epoch == feed.epoch and feed.has_all_from(self.mark.position):
                self.reader = FeedReader(feed, self.statuses, self.mark.position)
            else:
                self.reader = MovedReader(feed, self.statuses, self.mark)
        except FeedOverrun:
            self.list_all()

    def list_all(self) -> None:
        self.lists += 1
        self.reader = FeedReader(self.replica.feed, self.statuses)
        entries = self.replica.catalogue.entries.items()
        jobs = {job_id: entry.snapshot.job.status for job_id, entry in entries}
        self.known = {job_id: status for job_id, status in jobs.items() if status in self.statuses}
        self.mark = self.reader.mark

    def read(self, count: int) -> None:
        for _ in range(count):
            try:
                event = self.reader.next()
            except FeedOverrun:
                self.list_all()
                return
            if event is None:
                self.mark = self.reader.mark  # as an idle stream sends it
                return
            if event.snapshot is None:
                self.known.pop(event.job_id, None)
            else:
                self.known[event.job_id] = event.snapshot.job.status
            self.mark = self.reader.mark


class Run:
    """One random sequence of changes, reads and moves."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.storage = Storage()
        self.kept = random.choice([2, 30, 30])
        self.replicas = [self.start_replica()]
        self.storage.now += random.choice([0, 300, 300])
        self.replicas.append(self.start_replica())
        self.clients = [Client(random.choice(self.replicas), statuses) for statuses in FILTERS]

    def start_replica(self) -> Replica:
        clock_error, hidden_s = self.random.choice([0, CLOCK_S]), self.random.choice([0, HIDDEN_S])
        return Replica(self.storage, clock_error, hidden_s, self.kept)

    def step(self) -> None:
        steps = [
            self.write, self.write, self.write, self.remove, self.wait, self.see, self.see, self.see_all,
            self.receive, self.move, self.move, self.start_feed,
        ]  # fmt: skip
        self.random.choice(steps)()

    def write(self) -> None:
        # Few states, so that a job often returns to an earlier one.
        self.storage.write(self.random.choice(JOBS), self.random.choice([*UNFINISHED, Status.COMPLETED]))

    def remove(self) -> None:
        job_id = self.random.choice(JOBS)
        # A job that only one replica has ever seen is not reported as removed by the other.
        if all(replica.catalogue.get(job_id) for replica in self.replicas):
            self.storage.write(job_id, None)

    def wait(self) -> None:
        self.storage.now += self.random.choice([1, 20, 60, 200])

    def see(self) -> None:
        self.random.choice(self.replicas).read(self.random.choice(JOBS))

    def see_all(self) -> None:
        self.random.choice(self.replicas).reconcile()

    def receive(self) -> None:
        self.random.choice(self.clients).read(self.random.randint(1, 4))

    def move(self) -> None:
        client = self.random.choice(self.clients)
        client.read(self.random.choice([0, 1, 1000]))
        client.connect(self.random.choice(self.replicas))

    def start_feed(self) -> None:
        if self.random.random() < 0.3:
            replica = self.random.choice(self.replicas)
            replica.start_feed(self.kept)
            for client in self.clients:
                if client.replica is replica:
                    client.connect(replica)

    def settle(self) -> None:
        """Let both replicas see everything, and the clients read everything."""
        for _ in range(2):
            self.storage.now += 2 * MARGIN_S
            for replica in self.replicas:
                replica.reconcile()
        for client in self.clients:
            client.read(1000)


@pytest.mark.parametrize("seed", range(4))
def test_clients_that_move_at_random_know_their_jobs_as_they_are(seed: int) -> None:
    random, without_list = Random(seed), 0  # noqa: S311 - repeatable
    for _ in range(RUNS):
        run = Run(random)
        for _ in range(random.randint(5, 40)):
            run.step()
        run.settle()
        on_storage = {job_id: run.storage.seen_at(job_id, run.storage.now) for job_id in JOBS}
        statuses = {job_id: record.status for job_id, record in on_storage.items() if record is not None}
        for client in run.clients:
            assert client.known == {
                job_id: status for job_id, status in statuses.items() if status in client.statuses
            }
            without_list += client.moves - client.lists
    assert without_list > RUNS


def test_client_comes_from_a_replica_that_saw_less() -> None:
    """A change that the other replica had not seen is sent, although it was found before the client left."""
    storage = Storage()
    slow = Replica(storage, 0, HIDDEN_S, 30)
    storage.now += 300
    quick = Replica(storage, 0, 0, 30)
    storage.now += 300
    client = Client(slow, tuple(Status))
    storage.write("a", Status.QUEUED)
    quick.read("a")
    slow.reconcile()
    client.read(1000)
    client.connect(quick)
    client.read(1000)
    assert client.known == {"a": Status.QUEUED}
    assert client.lists == 1


def test_client_knows_a_state_that_the_other_replica_never_saw() -> None:
    """The record is as before when the other replica sees it again, so its feed has no change."""
    storage = Storage()
    storage.write("a", Status.QUEUED)
    quick, slow = Replica(storage, 0, 0, 30), Replica(storage, 0, 0, 30)
    storage.now += 300
    quick.reconcile()
    client = Client(quick, tuple(Status))
    storage.write("a", Status.RENDERING)
    quick.reconcile()
    client.read(1000)
    assert client.known == {"a": Status.RENDERING}
    client.connect(slow)
    storage.write("a", Status.QUEUED)
    for _ in range(2):
        storage.now += MARGIN_S
        slow.reconcile()
        client.read(1000)
    assert client.known == {"a": Status.QUEUED}
    assert client.lists == 1


def test_client_leaves_before_it_has_been_sent_everything_that_was_seen() -> None:
    storage = Storage()
    first, second = Replica(storage, 0, 0, 30), Replica(storage, 0, 0, 30)
    storage.now += 300
    first.reconcile()
    client = Client(first, tuple(Status))
    for job_id in ("a", "b"):
        storage.write(job_id, Status.QUEUED)
    for _ in range(2):
        first.reconcile()
        second.reconcile()
        storage.now += 300
    client.read(1)
    client.connect(second)
    client.read(1000)
    assert client.known == {"a": Status.QUEUED, "b": Status.QUEUED}
    assert client.lists == 1
