from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.job import Status, format_time, parse_record
from jobsvc.index import listing, ordered
from jobsvc.index.catalogue import Catalogue
from jobsvc.index.listing import Listing, Page
from jobsvc.storage.reader import Identity, Reading

OWNERS = ("ann", "bob")


def reading(
    job_id: str, owner: str = "ann", status: str = "queued", created: int = 0, updated: int = 0
) -> Reading:
    times = {"createdAt": format_time(created * 1_000_000), "updatedAt": format_time(updated * 1_000_000)}
    job = parse_record(job_id, {"status": status, "owner": owner} | times, 0)
    return Reading(job, Identity(1, 1, 1, 1), output=None, settled=True)


def ids(page: Page) -> list[str]:
    return [found.job.id for found in page.readings]


def everything(pages: Listing, owner: str | None, **filters: Any) -> Iterator[str]:
    after = None
    while True:
        page = pages.page(owner, after=after, **filters)
        yield from ids(page)
        after = page.after
        if after is None:
            return


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "PIECE", 4)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
def pages(catalogue: Catalogue) -> Listing:
    return Listing(catalogue)


def test_jobs_come_newest_first_and_by_id_where_they_are_equally_new(
    catalogue: Catalogue, pages: Listing
) -> None:
    for job_id, created in [("b", 1), ("c", 2), ("a", 1), ("d", 0)]:
        catalogue.put(job_id, reading(job_id, created=created), 1)
    assert ids(pages.page("ann")) == ["c", "a", "b", "d"]


def test_jobs_that_were_there_before_the_listing_are_in_it(catalogue: Catalogue) -> None:
    catalogue.put("a", reading("a"), 1)
    assert ids(Listing(catalogue).page("ann")) == ["a"]


def test_a_page_ends_where_the_next_begins(catalogue: Catalogue, pages: Listing) -> None:
    for number in range(25):
        catalogue.put(f"job-{number:02}", reading(f"job-{number:02}", created=number), 1)
    assert list(everything(pages, "ann", limit=4)) == [f"job-{number:02}" for number in reversed(range(25))]
    assert pages.page("ann", limit=25).after is None


def test_a_cursor_holds_its_place_while_jobs_come_and_go(catalogue: Catalogue, pages: Listing) -> None:
    for number in range(10):
        catalogue.put(f"job-{number}", reading(f"job-{number}", created=number), 1)
    first = pages.page("ann", limit=3)
    catalogue.remove("job-7", 2)
    catalogue.put("job-99", reading("job-99", created=99), 2)
    assert ids(pages.page("ann", limit=3, after=first.after)) == ["job-6", "job-5", "job-4"]


def test_a_page_looks_at_so_many_jobs_and_says_where_it_stopped(
    catalogue: Catalogue, pages: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "EXAMINED", 5)
    for number in range(30):
        catalogue.put(f"job-{number:02}", reading(f"job-{number:02}", created=number, updated=number % 7), 1)
    page = pages.page("ann", updated_since=6_000_000)
    assert len(page.readings) < 5
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
def test_pages_are_what_sorting_everything_would_give(
    changes: list[Any], size: int, statuses: set[Status], since: int
) -> None:
    catalogue = Catalogue()
    pages = Listing(catalogue)
    for moment, (number, owner, status, created, updated) in enumerate(changes):
        job_id = f"job-{number}"
        if status is None:
            catalogue.remove(job_id, moment)
        else:
            catalogue.put(job_id, reading(job_id, owner, status, created, updated), moment)
    for owner in (*OWNERS, None):
        jobs = [entry.reading.job for entry in catalogue.entries.values()]
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


def test_nothing_is_kept_of_owners_without_jobs(catalogue: Catalogue, pages: Listing) -> None:
    catalogue.put("a", reading("a", owner="ann"), 1)
    catalogue.put("a", reading("a", owner="bob"), 2)
    assert {owner for owner, _ in pages._orders} == {"bob", None}


def test_order_holds_through_many_changes_at_random_places() -> None:
    order, chance = ordered.Ordered(), random.Random(1)  # noqa: S311 - no secret
    jobs = [reading(f"job-{number}", created=chance.randrange(50)).job for number in range(300)]
    for job in jobs:
        order.add(job)
    for job in jobs[::3]:
        order.discard(job)
        order.discard(job)
    left = [job for number, job in enumerate(jobs) if number % 3]
    assert [key for key, _ in order.after(None)] == sorted(ordered.key_of(job) for job in left)
    assert len(order) == len(left)
