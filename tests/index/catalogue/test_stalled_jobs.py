from __future__ import annotations

from itertools import count
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.status_record import parse_record
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.catalogue.stalled_jobs import JOBS_PER_STEP, StalledJobs
from jobsvc.index.queries.listing import Listing
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.index.parts import make_coverage

AFTER_S = 900


def make_snapshot(
    job_id: str, written_at: float, status: str = "rendering", progress: int = 0
) -> JobSnapshot:
    keys = {"status": status, "owner": "ann", "progress": progress, "updatedAt": "2026-01-01T00:00:00Z"}
    job = parse_record(job_id, keys, 0, created_time=lambda: 0)
    return JobSnapshot(job, FileVersion(1, 1, int(written_at * 1e9), 1), output=None, is_stable=True)


class Scene:
    """A catalogue with stalled jobs, a list and a clock; notes each notification."""

    def __init__(self, after_s: float = AFTER_S) -> None:
        self.now = 1_000_000.0
        self.catalogue = Catalogue()
        self.stalled = StalledJobs(self.catalogue, after_s, clock=lambda: self.now)
        self.listing = Listing(self.catalogue, make_coverage(), IndexStats(), self.stalled)
        self._reads = count()
        self.notified: list[str] = []
        self.catalogue.subscribe(lambda job_id, _before, _after: self.notified.append(job_id))

    def put(self, job_id: str, written_at: float, status: str = "rendering", progress: int = 0) -> None:
        self.catalogue.put(job_id, make_snapshot(job_id, written_at, status, progress), self._next_read())

    def remove(self, job_id: str) -> None:
        self.catalogue.remove(job_id, self._next_read())

    def _next_read(self) -> float:
        """Return when the next read starts; later than all before it."""
        return monotonic() + next(self._reads)

    def check(self) -> None:
        """Check all jobs whose time has come, all of which were read after that."""
        for entry in self.catalogue.entries.values():
            entry.verified_at = self._next_read()
        while self.stalled.check_some():
            pass

    def listed(self) -> set[str]:
        """List the stalled jobs, of all owners and of theirs."""
        found = {each.job.id for each in self.listing.page(None, stalled=True, limit=1000).snapshots}
        assert found == {each.job.id for each in self.listing.page("ann", stalled=True, limit=1000).snapshots}
        assert len(found) == len(self.stalled)
        return found


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_unfinished_job_stalls_once_its_record_is_old(scene: Scene) -> None:
    scene.put("a", scene.now)
    scene.now += AFTER_S - 0.1
    scene.check()
    assert (scene.listed(), scene.notified) == (set(), ["a"])
    scene.now += 0.2
    scene.check()
    assert (scene.listed(), scene.notified) == ({"a"}, ["a", "a"])
    scene.check()
    assert scene.notified == ["a", "a"]


def test_job_is_known_to_be_stalled_as_soon_as_it_is_indexed(scene: Scene) -> None:
    scene.put("a", scene.now - AFTER_S)
    assert scene.listed() == {"a"}


@pytest.mark.parametrize("progress", [0, 5])
def test_new_record_ends_it_even_if_nothing_in_it_changed(scene: Scene, progress: int) -> None:
    scene.put("a", scene.now - AFTER_S)
    scene.put("a", scene.now, progress=progress)
    assert (scene.listed(), scene.notified) == (set(), ["a", "a"])
    scene.now += AFTER_S
    scene.check()
    assert scene.listed() == {"a"}


def test_record_with_the_same_content_and_an_older_time_can_be_stalled(scene: Scene) -> None:
    scene.put("a", scene.now)
    scene.put("a", scene.now - AFTER_S)
    assert (scene.listed(), scene.notified) == ({"a"}, ["a", "a"])


def test_finished_and_removed_jobs_are_not_stalled(scene: Scene) -> None:
    for job_id in "abc":
        scene.put(job_id, scene.now - AFTER_S)
    scene.put("a", scene.now - AFTER_S, "failed")
    scene.remove("b")
    assert scene.listed() == {"c"}
    scene.now += 10 * AFTER_S
    scene.check()
    assert scene.listed() == {"c"}


def test_job_that_was_not_read_since_does_not_stall(scene: Scene) -> None:
    """While the storage does not respond, nothing is known about the farm."""
    scene.put("a", scene.now)
    (entry := scene.catalogue.entries["a"]).verified_at = monotonic() - 60
    scene.now += AFTER_S + 1
    assert not scene.stalled.check_some()
    assert not scene.listed()
    entry.verified_at = monotonic()
    scene.now += 1
    scene.stalled.check_some()
    assert scene.listed() == {"a"}


def test_jobs_that_stall_at_once_are_checked_in_steps(scene: Scene) -> None:
    for number in range(JOBS_PER_STEP + 1):
        scene.put(f"job-{number}", scene.now)
    scene.now += AFTER_S + 1
    for entry in scene.catalogue.entries.values():
        entry.verified_at = monotonic()
    assert scene.stalled.check_some()
    assert len(scene.stalled) == JOBS_PER_STEP
    assert not scene.stalled.check_some()
    assert len(scene.stalled) == JOBS_PER_STEP + 1


def test_with_zero_no_job_is_stalled() -> None:
    scene = Scene(after_s=0)
    scene.put("a", 0)
    scene.put("a", 1)
    scene.check()
    assert not scene.listed()


job_ids = st.sampled_from("abc")
ages = st.integers(-AFTER_S, 3 * AFTER_S)
operations = st.one_of(
    st.tuples(st.just("put"), job_ids, ages, st.sampled_from(["queued", "rendering", "failed"])),
    st.tuples(st.just("remove"), job_ids),
    st.tuples(st.just("wait"), st.integers(0, 2 * AFTER_S)),
)


@given(st.lists(operations, max_size=30))
def test_after_each_check_exactly_the_old_unfinished_jobs_are_stalled(
    steps: list[tuple[object, ...]],
) -> None:
    scene = Scene()
    written: dict[str, float] = {}
    for step in steps:
        match step:
            case "put", str(job_id), int(age), str(status):
                scene.put(job_id, scene.now - age, status)
                written[job_id] = scene.now - age
                if status == "failed":
                    del written[job_id]
            case "remove", str(job_id):
                scene.remove(job_id)
                written.pop(job_id, None)
            case "wait", int(seconds):
                scene.now += seconds
        scene.check()
        assert scene.listed() == {job_id for job_id, at in written.items() if at + AFTER_S <= scene.now}
