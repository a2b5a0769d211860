"""Query parameters of a list and its pages: the endpoint over an in-memory index."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from aiohttp import HttpVersion10
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Response, StreamResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import MultiDict

from jobsvc.domain.access import ADMIN, JOBS_READ, Token
from jobsvc.domain.errors import BadRequest, StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.domain.status_record import parse_record
from jobsvc.domain.timestamp import format_time
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.endpoints.job_list import PARAMETERS, JobListEndpoint, parse_query, pieces
from jobsvc.web.jobs.list_items import LARGE_BYTES, ListItemCaches
from jobsvc.web.jobs.page_cursor import format_cursor, parse_cursor
from jobsvc.web.query_params import reject_unknown
from tests.index.parts import make_index

OWNERS = ("anna", "bert")


def token(owner: str, *scopes: str) -> Token:
    return Token("t", owner, frozenset(scopes or {JOBS_READ}), bytes(32), 0.0)


def test_default_query_is_fifty_of_all_jobs() -> None:
    parsed = parse_query(MultiDict())
    assert parsed == (frozenset(), frozenset(), False, None, 50, None)


def test_all_parameters_are_parsed() -> None:
    cursor = format_cursor((5, "job-1"))
    query = [
        ("status", "failed"),
        ("limit", "200"),
        ("status", "queued"),
        ("cursor", cursor),
        ("status", "failed"),
        ("owner", "anna"),
        ("stalled", "true"),
    ]
    since = ("updatedSince", "1970-01-01T00:00:01.5Z")
    parsed = parse_query(MultiDict([*query, since]))
    states = frozenset({Status.FAILED, Status.QUEUED})
    assert parsed == (states, frozenset({"anna"}), True, 1_500_000, 200, (5, "job-1"))


@pytest.mark.parametrize("offset", ["+02:00", " 02:00"])
def test_unescaped_plus_is_a_plus(offset: str) -> None:
    assert parse_query(MultiDict(updatedSince=f"1970-01-01T02:00:01{offset}")).updated_since == 1_000_000


def read(query: MultiDict[str]) -> None:
    """Parse a query as the endpoint does."""
    reject_unknown(query, *PARAMETERS)
    parse_query(query)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ([("state", "failed")], "'state'"),
        ([("Status", "failed")], "'Status'"),
        ([("", "")], "''"),
        ([("x" * 500, "")], "'" + "x" * 64 + "'"),
        ([("\udcff", "")], "'\\udcff'"),
        ([("status", "paused")], "status: 'paused'"),
        ([("status", "failed"), ("status", "")], "status: ''"),
        ([("status", "FAILED")], "status: 'FAILED'"),
        ([("status", "done")], "status: 'done'"),
        ([("status", "queued,failed")], "status: 'queued,failed'"),
        ([("status", "\udcff\x00")], "status: '\\udcff\\x00'"),
        *(
            ([("limit", text)], f"limit: {text!r}")
            for text in ("0", "201", "-1", "+5", "1.0", "", "1000", "٣", "1e2")
        ),
        ([("limit", "5"), ("limit", "5")], "limit"),
        *(
            ([("updatedSince", text)], f"updatedSince: {text!r}")
            for text in (
                "yesterday",
                "",
                "2026-01-01",
                "2026-01-01T00:00:00",
                "2026-13-01T00:00:00Z",
                "1767225600",
            )
        ),
        (
            [("updatedSince", "2026-01-01T00:00:00Z"), ("updatedSince", "2026-01-01T00:00:00Z")],
            "updatedSince",
        ),
        *(([("cursor", text)], f"cursor: {text!r}") for text in ("", "x", "job-1")),
        ([("cursor", format_cursor((5, "job-1"))), ("cursor", format_cursor((5, "job-1")))], "cursor"),
    ],
)
def test_invalid_parameter_is_refused_by_name(query: list[tuple[str, str]], named: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(MultiDict(query))
    assert named in refused.value.detail
    assert len(refused.value.detail) < 200
    orjson.dumps(refused.value.detail)


@given(
    query=st.lists(
        st.tuples(st.sampled_from(["status", "updatedSince", "limit", "cursor"]), st.text(max_size=40)),
        max_size=4,
    )
)
def test_any_query_is_parsed_or_refused(query: list[tuple[str, str]]) -> None:
    try:
        parsed = parse_query(MultiDict(query))
    except BadRequest:
        return
    assert 1 <= parsed.limit <= 200


def run_without_loop(answering: Coroutine[Any, Any, StreamResponse]) -> StreamResponse:
    """Run a coroutine that only yields, without an event loop."""
    try:
        for _ in range(2):
            answering.send(None)
    except StopIteration as done:
        answer: StreamResponse = done.value
        return answer
    raise AssertionError("the coroutine waits")


class ListMachine:
    """An endpoint over an index without storage: jobs are put into its catalogue."""

    def __init__(self) -> None:
        self.index = make_index(StorageExecutor(), JobsRoot(Path("/nowhere")), WatchMode.AUTO)
        self.index.stats.reconciled_at = 0
        self.index.ready.set()
        self.route = JobListEndpoint(self.index, ListItemCaches())
        self._moment = 0

    def put(self, number: int, owner: str, status: Status, created: int, updated: int) -> None:
        self._moment += 1
        times = {"createdAt": format_time(created * 1_000_000), "updatedAt": format_time(updated * 1_000_000)}
        job = parse_record(f"job-{number}", {"status": status, "owner": owner, **times}, 0)
        snapshot = JobSnapshot(job, FileVersion(1, 1, 1, 1), output=None, is_stable=True)
        self.index.catalogue.put(f"job-{number}", snapshot, self._moment)

    def remove(self, number: int) -> None:
        self._moment += 1
        self.index.catalogue.remove(f"job-{number}", self._moment)

    def ask(self, who: Token, query: list[tuple[str, str]]) -> dict[str, Any]:
        # HTTP/1.0, so that the response is returned instead of being written.
        request = make_mocked_request("GET", f"/api/jobs?{urlencode(query)}", version=HttpVersion10)
        request[TOKEN] = who
        response = run_without_loop(self.route.handle(request))
        assert isinstance(response, Response)
        assert isinstance(response.body, bytes)
        page: dict[str, Any] = orjson.loads(response.body)
        return page

    def pages(self, who: Token, query: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        cursor: list[tuple[str, str]] = []
        for _ in range(100):
            page = self.ask(who, query + cursor)
            yield page
            if page["nextCursor"] is None:
                return
            cursor = [("cursor", page["nextCursor"])]
        raise AssertionError("the pages never end")


ONE = st.tuples(st.sampled_from(OWNERS), st.sampled_from(list(Status)), st.integers(0, 4), st.integers(0, 4))
CHANGE = st.tuples(st.integers(0, 12), st.none() | ONE)


@settings(max_examples=50, deadline=None)
@given(
    world=st.dictionaries(st.integers(0, 12), ONE),
    between=st.lists(st.lists(CHANGE, max_size=4), max_size=5),
    states=st.sets(st.sampled_from(list(Status))),
    size=st.integers(1, 3),
    who=st.sampled_from([token("anna"), token("bert"), token("anna", ADMIN), token("carl")]),
)
def test_unchanged_jobs_are_listed_once_and_jobs_of_other_owners_never(
    world: dict[int, Any],
    between: list[list[Any]],
    states: set[Status],
    size: int,
    who: Token,
) -> None:
    machine = ListMachine()
    for number, one in world.items():
        machine.put(number, *one)

    def expected() -> dict[str, str]:
        jobs = [entry.snapshot.job for entry in machine.index.catalogue.entries.values()]
        seen = [job for job in jobs if who.owner == job.owner or ADMIN in who.scopes]
        return {job.id: job.created_at for job in seen if job.status in (states or set(Status))}

    stayed, listed = set(expected().items()), []
    changes = iter(between)
    query = [("limit", str(size)), *(("status", state.value) for state in states)]
    for page in machine.pages(who, query):
        here = [(job["id"], job["createdAt"]) for job in page["jobs"]]
        assert set(here) <= set(expected().items())
        listed += here
        position = parse_cursor(page["nextCursor"] or "")
        assert position is None or position[1] in expected()
        for number, one in next(changes, []):
            if one is None:
                machine.remove(number)
            else:
                machine.put(number, *one)
            stayed &= set(expected().items())
    assert stayed <= set(listed)
    assert len(listed) == len(set(listed))


@given(after=st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.from_regex("[ -~]{0,200}", fullmatch=True)))
def test_forged_cursor_lists_only_jobs_of_the_token(after: tuple[int, str]) -> None:
    machine = ListMachine()
    for number in range(6):
        machine.put(number, OWNERS[number % 2], Status.QUEUED, number, number)
    page = machine.ask(token("anna"), [("cursor", format_cursor(after))])
    assert {job["id"] for job in page["jobs"]} <= {"job-0", "job-2", "job-4"}


async def test_list_is_refused_until_the_index_is_complete() -> None:
    machine = ListMachine()
    machine.index.ready.clear()
    request = make_mocked_request("GET", "/api/jobs")
    request[TOKEN] = token("anna")
    with pytest.raises(StorageUnavailable) as refused:
        await machine.route.handle(request)
    assert refused.value.retry_after is not None
    request = make_mocked_request("GET", "/api/jobs?limit=0")
    request[TOKEN] = token("anna")
    with pytest.raises(BadRequest):
        await machine.route.handle(request)


def test_page_is_joined_except_large_jobs_which_are_shared() -> None:
    large = b'{"x":"%b"}' % (b"y" * LARGE_BYTES)
    elements = [b"{}", large, b"[]", b"{}", large]
    body = pieces(elements, b'],"nextCursor":null}')
    assert b"".join(body) == b'{"jobs":[%b],"nextCursor":null}' % b",".join(elements)
    assert [piece for piece in body if piece is large] == [large, large]
    assert len(body) == 5


def test_page_of_small_jobs_is_one_chunk() -> None:
    assert pieces([b"{}", b"[]"], b"]}") == (b'{"jobs":[{},[]]}',)
    assert pieces([], b"]}") == (b'{"jobs":[]}',)
