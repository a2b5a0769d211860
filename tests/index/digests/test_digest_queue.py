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


def wish(job_id: str, owner: str = "ann", *, version: int = 0, due: float = 0) -> DigestRequest:
    return DigestRequest(job(job_id, owner), FileVersion(version, 0, 0, 0), due)


def taken(wishes: DigestQueue, now: float = 0) -> list[str]:
    found = []
    while (next_one := wishes.take(now)) is not None:
        found.append(next_one.job.id)
    return found


@pytest.fixture
def wishes() -> DigestQueue:
    return DigestQueue(most=3)


def test_owners_have_their_turns_whoever_came_with_many(wishes: DigestQueue) -> None:
    for job_id in ("a1", "a2", "a3"):
        wishes.add(wish(job_id, "ann"))
    wishes.add(wish("b1", "ben"))
    wishes.add(wish("b2", "ben"))
    wishes.add(wish("c1", "cleo"))
    assert taken(wishes) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_wishes_again_after_his_turn_waits_for_the_others(wishes: DigestQueue) -> None:
    wishes.add(wish("a1", "ann"))
    wishes.add(wish("b1", "ben"))
    assert (first := wishes.take(0)) is not None
    wishes.add(wish("a2", "ann"))
    assert [first.job.id, *taken(wishes)] == ["a1", "b1", "a2"]


def test_the_same_wish_waits_once_and_another_version_takes_its_place(wishes: DigestQueue) -> None:
    wishes.add(wish("a1"))
    wishes.add(wish("a2"))
    wishes.add(wish("a1", due=5))
    wishes.add(wish("a2", version=1))
    assert len(wishes) == 2
    first, second = wishes.take(0), wishes.take(0)
    assert first is not None
    assert second is not None
    assert (first.due, second.version) == (0, FileVersion(1, 0, 0, 0))


def test_of_an_owner_only_so_many_wait(wishes: DigestQueue) -> None:
    assert all(wishes.add(wish(f"a{number}")) for number in range(3))
    assert not wishes.add(wish("a3"))
    assert wishes.add(wish("a0", version=1)), "it waits already"
    assert wishes.add(wish("b0", "ben"))
    assert len(wishes) == 4


def test_what_is_not_due_lets_others_pass(wishes: DigestQueue) -> None:
    wishes.add(wish("a1", due=2))
    wishes.add(wish("a2", due=1))
    wishes.add(wish("b1", "ben", due=3))
    assert (wishes.due, taken(wishes, 0.5)) == (1, [])
    assert (taken(wishes, 1), wishes.due) == (["a2"], 2)
    assert (taken(wishes, 3), wishes.due) == (["b1", "a1"], inf)


def test_owner_whose_turn_is_not_over_comes_first(wishes: DigestQueue) -> None:
    for job_id, owner in (("a1", "ann"), ("a2", "ann"), ("b1", "ben"), ("b2", "ben")):
        wishes.add(wish(job_id, owner))
    found = [wishes.take(0, owner) for owner in (None, "ann", "ann", "ben")]
    assert [one.job.id for one in found if one is not None] == ["a1", "a2", "b1", "b2"]


def test_wish_that_was_put_back_waits_behind_all_others_with_its_progress(wishes: DigestQueue) -> None:
    for job_id, owner in (("a1", "ann"), ("a2", "ann"), ("b1", "ben")):
        wishes.add(wish(job_id, owner))
    first = wishes.take(0)
    assert first is not None
    progress = HashProgress()
    wishes.put_back(first._replace(progress=progress))
    wishes.add(wish("a1"))
    assert len(wishes) == 3
    found = [wishes.take(0) for _ in range(3)]
    assert [one.job.id for one in found if one is not None] == ["b1", "a2", "a1"]
    assert found[-1] == first._replace(progress=progress)


def test_wish_for_a_newer_version_stays_when_the_old_one_is_put_back(wishes: DigestQueue) -> None:
    old, new = wish("a1"), wish("a1", version=1)
    wishes.add(new)
    wishes.put_back(old)
    assert (wishes.take(0), wishes.take(0)) == (new, None)


OWNERS: Final = st.sampled_from(["ann", "ben", "cleo"])


class Lines(RuleBasedStateMachine):
    """Every wish that was taken on comes out once, as it was last; nobody has two turns before another's."""

    def __init__(self) -> None:
        super().__init__()
        self.wishes = DigestQueue(most=3)
        self.waiting: dict[tuple[str, str], DigestRequest] = {}
        self.passed: dict[str, set[str]] = {}
        """By owner with something due, who had a turn since he waits."""
        self.now = 0.0

    @rule(owner=OWNERS, number=st.integers(0, 4), version=st.integers(0, 1), wait=st.integers(0, 2))
    def add(self, owner: str, number: int, version: int, wait: int) -> None:
        new = wish(f"{owner}-{number}", owner, version=version, due=self.now + wait)
        key = owner, new.job.id
        of_owner = sum(someone == owner for someone, _ in self.waiting)
        taken_on = self.wishes.add(new)
        assert taken_on == (key in self.waiting or of_owner < 3)
        if taken_on and (key not in self.waiting or self.waiting[key].version != new.version):
            self.waiting[key] = new

    @rule()
    def take(self) -> None:
        found = self.wishes.take(self.now)
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
        assert len(self.wishes) == len(self.waiting)
        assert self.wishes.due == min((one.due for one in self.waiting.values()), default=inf)


TestLines = Lines.TestCase
TestLines.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
