from __future__ import annotations

from math import inf
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jobsvc.domain.job import Job
from jobsvc.domain.status_record import parse_record
from jobsvc.index.digests.digest_queue import DigestQueue, DigestRequest
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_hash import HashProgress


def job(job_id: str, owner: str = "ann") -> Job:
    return parse_record(job_id, {"status": "done", "owner": owner}, 0)


def digest_request(job_id: str, owner: str = "ann", *, version: int = 0, due: float = 0) -> DigestRequest:
    return DigestRequest(job(job_id, owner), FileVersion(version, 0, 0, 0), due)


def take_all(queue: DigestQueue, now: float = 0) -> list[str]:
    found = []
    while (next_one := queue.take(now)) is not None:
        found.append(next_one.job.id)
    return found


@pytest.fixture
def queue() -> DigestQueue:
    return DigestQueue(max_per_owner=3)


def test_owners_take_turns_however_many_requests_each_has(queue: DigestQueue) -> None:
    for job_id in ("a1", "a2", "a3"):
        queue.add(digest_request(job_id, "ann"))
    queue.add(digest_request("b1", "ben"))
    queue.add(digest_request("b2", "ben"))
    queue.add(digest_request("c1", "cleo"))
    assert take_all(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_owner_that_requests_again_after_its_turn_waits_for_the_others(queue: DigestQueue) -> None:
    queue.add(digest_request("a1", "ann"))
    queue.add(digest_request("b1", "ben"))
    assert (first := queue.take(0)) is not None
    queue.add(digest_request("a2", "ann"))
    assert [first.job.id, *take_all(queue)] == ["a1", "b1", "a2"]


def test_repeated_request_is_queued_once_and_another_version_replaces_it(queue: DigestQueue) -> None:
    queue.add(digest_request("a1"))
    queue.add(digest_request("a2"))
    queue.add(digest_request("a1", due=5))
    queue.add(digest_request("a2", version=1))
    assert len(queue) == 2
    first, second = queue.take(0), queue.take(0)
    assert first is not None
    assert second is not None
    assert (first.due, second.version) == (0, FileVersion(1, 0, 0, 0))


def test_number_of_queued_requests_per_owner_is_limited(queue: DigestQueue) -> None:
    assert all(queue.add(digest_request(f"a{number}")) for number in range(3))
    assert not queue.add(digest_request("a3"))
    assert queue.add(digest_request("a0", version=1)), "it is queued already"
    assert queue.add(digest_request("b0", "ben"))
    assert len(queue) == 4


def test_requests_that_are_not_due_let_others_pass(queue: DigestQueue) -> None:
    queue.add(digest_request("a1", due=2))
    queue.add(digest_request("a2", due=1))
    queue.add(digest_request("b1", "ben", due=3))
    assert (queue.due, take_all(queue, 0.5)) == (1, [])
    assert (take_all(queue, 1), queue.due) == (["a2"], 2)
    assert (take_all(queue, 3), queue.due) == (["b1", "a1"], inf)


def test_owner_whose_turn_is_not_over_comes_first_again(queue: DigestQueue) -> None:
    for job_id, owner in (("a1", "ann"), ("a2", "ann"), ("b1", "ben"), ("b2", "ben")):
        queue.add(digest_request(job_id, owner))
    found = [queue.take(0, owner) for owner in (None, "ann", "ann", "ben")]
    assert [one.job.id for one in found if one is not None] == ["a1", "a2", "b1", "b2"]


def test_request_that_is_put_back_waits_behind_all_others_and_keeps_its_progress(queue: DigestQueue) -> None:
    for job_id, owner in (("a1", "ann"), ("a2", "ann"), ("b1", "ben")):
        queue.add(digest_request(job_id, owner))
    first = queue.take(0)
    assert first is not None
    progress = HashProgress()
    queue.put_back(first._replace(progress=progress))
    queue.add(digest_request("a1"))
    assert len(queue) == 3
    found = [queue.take(0) for _ in range(3)]
    assert [one.job.id for one in found if one is not None] == ["b1", "a2", "a1"]
    assert found[-1] == first._replace(progress=progress)


def test_request_for_a_newer_version_remains_when_the_old_one_is_put_back(queue: DigestQueue) -> None:
    old, new = digest_request("a1"), digest_request("a1", version=1)
    queue.add(new)
    queue.put_back(old)
    assert (queue.take(0), queue.take(0)) == (new, None)


OWNERS: Final = st.sampled_from(["ann", "ben", "cleo"])


class QueueMachine(RuleBasedStateMachine):
    """Every accepted request is returned once, in its last form; no owner has two turns while
    another waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = DigestQueue(max_per_owner=3)
        self.waiting: dict[tuple[str, str], DigestRequest] = {}
        self.passed: dict[str, set[str]] = {}
        """By owner with a due request: the owners that had a turn while it waited."""
        self.now = 0.0

    @rule(owner=OWNERS, number=st.integers(0, 4), version=st.integers(0, 1), wait=st.integers(0, 2))
    def add(self, owner: str, number: int, version: int, wait: int) -> None:
        new = digest_request(f"{owner}-{number}", owner, version=version, due=self.now + wait)
        key = owner, new.job.id
        of_owner = sum(someone == owner for someone, _ in self.waiting)
        taken_on = self.queue.add(new)
        assert taken_on == (key in self.waiting or of_owner < 3)
        if taken_on and (key not in self.waiting or self.waiting[key].version != new.version):
            self.waiting[key] = new

    @rule()
    def take(self) -> None:
        found = self.queue.take(self.now)
        due = [one for one in self.waiting.values() if one.due <= self.now]
        if found is None:
            assert not due
            return
        owner = found.job.owner
        assert self.waiting.pop((owner, found.job.id)) == found
        assert found in due
        for other in {one.job.owner for one in due} - {owner}:
            had = self.passed.setdefault(other, set())
            assert owner not in had, f"{owner} twice before {other}"
            had.add(owner)
        self.passed.pop(owner, None)

    @rule()
    def later(self) -> None:
        self.now += 1

    @invariant()
    def all_are_there(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.due == min((one.due for one in self.waiting.values()), default=inf)


TestLines = QueueMachine.TestCase
TestLines.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
