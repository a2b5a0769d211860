"""CPU time of a page of `GET /api/jobs` at 100,000 jobs, by query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Final, NamedTuple

import orjson

from benchmarks.harness import farm, host_info, process, servers, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.load_generator import Load, answer, get, until
from benchmarks.harness.servers import Server

OWNERS: Final = 500
"""Between them they have one job in ten; the rest is `farm`'s."""
OWNER_STRIDE: Final = 701
"""One of this many jobs was updated recently: almost every chunk of the sorted list has one."""
PAGE_GOAL_MS: Final = table.Goal(at_most=5.0)
_FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)
_RECENT: Final = "2026-11-01T00:00:00Z"
_NEVER: Final = "2026-12-31T00:00:00Z"


class Case(NamedTuple):
    """One request to measure: its query and the token that sends it."""

    name: str
    token: str
    query: str
    deep: bool = False
    """Whether the pages are spread over the list; otherwise it is the first page each time."""


def run(plan: Plan) -> None:
    """Measure and print."""
    jobs = int(plan.pick(100_000, 5_000))
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("listing", plan.scratch))
        root = scratch / "jobs"
        farm.fill(root, jobs, vary=_record_fields)
        sleep(farm.STABLE_AFTER_S)
        owner, small, admin = (
            servers.token(scratch, *words) for words in (("farm",), ("owner-7",), ("ops", "admin"))
        )
        ours = stack.enter_context(servers.jobsvc(root, scratch, "--watch", "poll"))
        until(lambda: answer(ours.address, get("/readyz"))[0] == 200, 120)
        table.title(
            f"listing: {jobs:,} jobs of {OWNERS + 1} owners, a page at a time on one connection; "
            f"{host_info.describe_placement()}; {host_info.load_average()}"
        )
        cases = [
            Case("the first 50", owner, "limit=50"),
            Case("the first 200", owner, "limit=200"),
            Case("200, pages all over the list", owner, "limit=200", deep=True),
            Case("200 of every owner's, all over the list", admin, "limit=200", deep=True),
            Case("one owner among many", small, "limit=200"),
            Case("a rare state", owner, "status=canceled&limit=200", deep=True),
            Case("a rare state of an owner who has none", small, "status=canceled&limit=200"),
            Case("updated since, which none is", admin, f"updatedSince={_NEVER}&limit=200"),
            Case("updated since, which one of 701 is", admin, f"updatedSince={_RECENT}&limit=200", deep=True),
            Case("the last page", owner, f"limit=200&cursor={_last_cursor(ours, owner)}"),
        ]
        for case in cases:
            _measure(plan, ours, case)


def _record_fields(number: int) -> dict[str, object]:
    """Spread creation times over the year, with a few recently updated jobs and a few of other owners."""
    created = _FIRST + timedelta(seconds=number * 7919 % 20_000_000)
    updated = datetime(2026, 11, 20, tzinfo=UTC) if number % OWNER_STRIDE == 0 else created
    owner = f"owner-{number // 10 % OWNERS}" if number % 10 == 0 else farm.OWNER
    return {
        "owner": owner,
        "createdAt": created.isoformat().replace("+00:00", "Z"),
        "updatedAt": updated.isoformat().replace("+00:00", "Z"),
    }


def _measure(plan: Plan, ours: Server, case: Case) -> None:
    pages = list(_pages(ours, case)) if case.deep else [f"/api/jobs?{case.query}"]
    load = Load(ours.address, [get(page, case.token) for page in pages], 1)
    seconds = plan.pick(2, 0.5)
    load.run(seconds=seconds / 4)
    milliseconds = []
    for _ in range(plan.rounds):
        before = process.cpu(ours.process.pid)
        outcome = load.run(seconds=seconds)
        milliseconds.append((process.cpu(ours.process.pid) - before) / outcome.requests * 1e3)
    shown = len(orjson.loads(answer(ours.address, get(pages[0], case.token))[1])["jobs"])
    table.row(f"{case.name} ({len(pages)} pages, {shown} jobs)", milliseconds, " ms", PAGE_GOAL_MS)


def _pages(ours: Server, case: Case) -> Iterator[str]:
    """Read the whole list, and yield the URL of each page."""
    address: str | None = f"/api/jobs?{case.query}"
    while address is not None:
        yield address
        cursor = orjson.loads(answer(ours.address, get(address, case.token))[1])["nextCursor"]
        address = None if cursor is None else f"/api/jobs?{case.query}&cursor={cursor}"


def _last_cursor(ours: Server, token: str) -> str:
    """Return the cursor of the last page."""
    *_, last = _pages(ours, Case("", token, "limit=200"))
    return last.rpartition("cursor=")[2]
