from __future__ import annotations

import random
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.job import Status
from jobsvc.domain.status_record import parse_record
from jobsvc.domain.timestamp import format_time
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.queries import listing, sorted_jobs
from jobsvc.index.queries.listing import Listing, Page
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.index.parts import make_coverage, make_listing

OWNERS = ("ann", "bob")


def make_snapshot(
    job_id: str, owner: str = "ann", status: str = "queued", created: int = 0, updated: int = 0
) -> JobSnapshot:
    times = {"createdAt": format_time(created * 1_000_000), "updatedAt": format_time(updated * 1_000_000)}
    job = parse_record(job_id, {"status": status, "owner": owner} | times, 0)
    return JobSnapshot(job, FileVersion(1, 1, 1, 1), output=None, is_stable=True)


def ids(page: Page) -> list[str]:
    return [found.job.id for found in page.snapshots]


def everything(pages: Listing, owner: str | None, **filters: Any) -> Iterator[str]:
    after = None
    for _ in range(1000):
        page = pages.page(owner, after=after, **filters)
        yield from ids(page)
        after = page.after
        if after is None:
            return
    raise AssertionError("the pages never end")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_jobs, "CHUNK_JOBS", 4)
    monkeypatch.setattr(sorted_jobs, "MAX_STEP_COST", 4)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
def pages(catalogue: Catalogue) -> Listing:
    return make_listing(catalogue)


def test_jobs_are_sorted_newest_first_then_by_id(catalogue: Catalogue, pages: Listing) -> None:
    for job_id, created in [("b", 1), ("c", 2), ("a", 1), ("d", 0)]:
        catalogue.put(job_id, make_snapshot(job_id, created=created), 1)
    assert ids(pages.page("ann")) == ["c", "a", "b", "d"]


def test_jobs_that_existed_before_the_listing_are_in_it(catalogue: Catalogue) -> None:
    catalogue.put("a", make_snapshot("a"), 1)
    assert ids(make_listing(catalogue).page("ann")) == ["a"]


def test_page_ends_where_the_next_starts(catalogue: Catalogue, pages: Listing) -> None:
    for number in range(25):
        catalogue.put(f"job-{number:02}", make_snapshot(f"job-{number:02}", created=number), 1)
    assert list(everything(pages, "ann", limit=4)) == [f"job-{number:02}" for number in reversed(range(25))]
    assert pages.page("ann", limit=25).after is None


def test_cursor_keeps_its_position_while_jobs_change(catalogue: Catalogue, pages: Listing) -> None:
    for number in range(10):
        catalogue.put(f"job-{number}", make_snapshot(f"job-{number}", created=number), 1)
    first = pages.page("ann", limit=3)
    catalogue.remove("job-7", 2)
    catalogue.put("job-99", make_snapshot("job-99", created=99), 2)
    assert ids(pages.page("ann", limit=3, after=first.after)) == ["job-6", "job-5", "job-4"]


def test_page_examines_a_limited_number_of_jobs_and_returns_where_it_stopped(
    catalogue: Catalogue, pages: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_EXAMINED", 5)
    for number in range(30):
        catalogue.put(
            f"job-{number:02}", make_snapshot(f"job-{number:02}", created=number, updated=number % 7), 1
        )
    page = pages.page("ann", updated_since=6_000_000)
    assert len(page.snapshots) < 5
    assert page.after is not None
    found = list(everything(pages, "ann", updated_since=6_000_000))
    assert found == [f"job-{number:02}" for number in (27, 20, 13, 6)]


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.sampled_from(OWNERS),
        st.sampled_from([*Status, None]),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(
    changes=CHANGES,
    size=st.integers(1, 7),
    statuses=st.sets(st.sampled_from(list(Status))),
    since=st.integers(0, 6),
)
def test_pages_equal_a_full_sort(changes: list[Any], size: int, statuses: set[Status], since: int) -> None:
    catalogue = Catalogue()
    pages = make_listing(catalogue)
    for timestamp, (number, owner, status, created, updated) in enumerate(changes):
        job_id = f"job-{number}"
        if status is None:
            catalogue.remove(job_id, timestamp)
        else:
            catalogue.put(job_id, make_snapshot(job_id, owner, status, created, updated), timestamp)
    for owner in (*OWNERS, None):
        jobs = [entry.snapshot.job for entry in catalogue.entries.values()]
        expected = sorted(
            (-job.created_order, job.id)
            for job in jobs
            if owner in {None, job.owner}
            and job.status in (statuses or set(Status))
            and job.updated_order >= since * 1_000_000
        )
        found = everything(pages, owner, limit=size, statuses=statuses, updated_since=since * 1_000_000)
        assert list(found) == [job_id for _, job_id in expected]
    assert all(pages._orders.values())


WORLD = st.dictionaries(
    st.integers(0, 25),
    st.tuples(st.sampled_from(OWNERS), st.sampled_from(list(Status)), st.integers(0, 5), st.integers(0, 5)),
    max_size=26,
)


@settings(max_examples=150, deadline=None)
@given(
    world=WORLD,
    meanwhile=st.lists(CHANGES.map(lambda changes: changes[:8]), min_size=1, max_size=6),
    size=st.integers(1, 4),
    statuses=st.sets(st.sampled_from(list(Status))),
    since=st.integers(0, 4),
    owner=st.sampled_from([*OWNERS, None]),
)
def test_unchanged_job_is_listed_exactly_once_whatever_changes_between_pages(
    world: dict[int, Any], meanwhile: list[list[Any]], size: int, statuses: set[Status], since: int,
    owner: str | None,
) -> None:  # fmt: skip
    """It passes the filters throughout with the same createdAt; its state may change within them."""
    catalogue, timestamp = Catalogue(), 0
    pages = make_listing(catalogue)

    def write(number: int, to: Any) -> None:
        nonlocal timestamp
        timestamp += 1
        catalogue.put(f"job-{number}", make_snapshot(f"job-{number}", *to), timestamp)

    def wanted() -> set[tuple[str, int]]:
        jobs = [entry.snapshot.job for entry in catalogue.entries.values()]
        return {
            (job.id, job.created_order)
            for job in jobs
            if owner in {None, job.owner}
            and job.status in (statuses or set(Status))
            and job.updated_order >= since * 1_000_000
        }

    for number, to in world.items():
        write(number, to)
    stayed, seen, after = wanted(), [], None
    for step in range(1000):
        page = pages.page(owner, after=after, limit=size, statuses=statuses, updated_since=since * 1_000_000)
        here = [(found.job.id, found.job.created_order) for found in page.snapshots]
        assert set(here) <= wanted()
        seen += here
        after = page.after
        if after is None:
            break
        for number, *to in meanwhile[step] if step < len(meanwhile) else []:
            if to[1] is None:
                timestamp += 1
                catalogue.remove(f"job-{number}", timestamp)
            else:
                write(number, to)
            stayed &= wanted()
    assert after is None
    assert stayed <= set(seen)
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, key=lambda one: (-one[1], one[0]))


def test_owners_without_jobs_are_not_kept(catalogue: Catalogue, pages: Listing) -> None:
    catalogue.put("a", make_snapshot("a", owner="ann"), 1)
    catalogue.put("a", make_snapshot("a", owner="bob"), 2)
    assert {owner for owner, _ in pages._orders} == {"bob", None}


def test_order_is_kept_through_many_random_changes() -> None:
    order, chance = sorted_jobs.SortedJobs(), random.Random(1)  # noqa: S311 - no secret
    jobs = [make_snapshot(f"job-{number}", created=chance.randrange(50)).job for number in range(300)]
    for job in jobs:
        order.add(sorted_jobs.key_of(job), job.updated_order)
    for job in jobs[::3]:
        order.discard(sorted_jobs.key_of(job))
        order.discard(sorted_jobs.key_of(job))
    left = [job for number, job in enumerate(jobs) if number % 3]
    assert list(order.after(None)) == sorted(sorted_jobs.key_of(job) for job in left)
    assert len(order) == len(left)


def test_cursors_of_a_page_are_of_matching_jobs(
    catalogue: Catalogue, pages: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the page ended because it examined enough jobs: no page ends at another owner's job."""
    monkeypatch.setattr(listing, "MAX_EXAMINED", 1)
    for number in range(60):
        job_id = f"job-{number:02}"
        catalogue.put(
            job_id, make_snapshot(job_id, OWNERS[number % 2], created=number, updated=number % 3), 1
        )
    after, places = None, []
    while (after := pages.page("ann", updated_since=1_000_000, limit=3, after=after).after) is not None:
        places.append(after[1])
    assert places
    assert {catalogue.entries[job_id].snapshot.job.owner for job_id in places} == {"ann"}
    assert len(places) == len(set(places))


def test_age_of_a_page_is_that_of_its_oldest_job_and_of_the_last_reconcile() -> None:
    """While the watcher is healthy and everything was reconciled since, its silence proves more."""
    catalogue, coverage, stats = Catalogue(), make_coverage(), IndexStats()
    pages = make_listing(catalogue, coverage, stats)
    assert pages.valid_at(pages.page(None)) == -inf
    catalogue.put("old", make_snapshot("old"), 10)
    catalogue.put("new", make_snapshot("new", created=1), 30)
    stats.reconciled_at, stats.reconcile_seconds = 25, 5
    assert pages.valid_at(pages.page(None, limit=1)) == 20
    assert pages.valid_at(pages.page(None)) == 10
    coverage.begin(22)
    for timestamp in (40, 50):
        coverage.note_heartbeat(timestamp)
        coverage.note_root_ok(timestamp)
    assert pages.valid_at(pages.page("nobody")) == 20, "the reconcile was before the watcher started"
    stats.reconciled_at = 35
    assert pages.valid_at(pages.page("nobody")) == 50
    assert pages.valid_at(pages.page(None, limit=1)) == 30, "the job is not covered"
    catalogue.entries["new"].last_event_at = 29
    assert pages.valid_at(pages.page(None, limit=1)) == 50
