from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from jobsvc.domain.access import Token
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.ratelimit import further_ranges
from jobsvc.web.ratelimit.budgets import Budget
from jobsvc.web.ratelimit.further_ranges import FurtherRanges
from jobsvc.web.ratelimit.sliding_window import Rate


def request_for(wanted: str) -> web.Request:
    request = make_mocked_request("GET", "/job", headers={"Range": wanted})
    request.protocol.last_range = None  # type: ignore[attr-defined] # of our connections
    return request


TOKEN = Token(id="a", owner="anna", scopes=frozenset(), digest=bytes(32), created=0)
OTHER = Token(id="b", owner="anna", scopes=frozenset(), digest=bytes(32), created=0)
RANGE = make_mocked_request("GET", "/job", headers={"Range": "bytes=0-"})

FURTHER = make_mocked_request("GET", "/job", headers={"Range": "bytes=9-"})
KEY = (TOKEN.id, None, "/job")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def new_further_ranges(clock: Clock) -> FurtherRanges:
    return FurtherRanges(
        Budget("ranges", Rate(9, 3600)), ClientAddresses(()), lambda request: request.path, clock=clock
    )


def test_output_counts_as_being_read_for_one_to_two_minutes() -> None:
    for started_at in (0, 1, 59.9, 60, 61):
        clock = Clock()
        made = new_further_ranges(clock)
        clock.now = started_at
        made.record(RANGE, KEY, HTTPStatus.PARTIAL_CONTENT)
        clock.now = started_at + 59.9
        assert made.is_further(FURTHER, KEY)
        clock.now = started_at + 120.1
        assert not made.is_further(FURTHER, KEY)


def test_only_range_requests_continue_a_use_and_only_sent_bytes_start_one() -> None:
    made = new_further_ranges(Clock())
    for status in (
        HTTPStatus.NOT_MODIFIED,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ):
        made.record(RANGE, KEY, status)
        assert not made.is_further(RANGE, KEY)
    made.record(make_mocked_request("HEAD", "/job"), KEY, HTTPStatus.OK)
    assert made.is_further(FURTHER, KEY)
    assert not made.is_further(FURTHER, made.key_of(FURTHER, OTHER))
    assert not made.is_further(make_mocked_request("GET", "/job"), KEY)
    assert not made.is_further(make_mocked_request("HEAD", "/job", headers={"Range": "bytes=0-"}), KEY)


def test_number_of_remembered_uses_is_bounded() -> None:
    made = new_further_ranges(Clock())
    for number in range(further_ranges.MAX_KEYS * 3):
        made._recent["a", None, str(number)] = None
        made._rotate()
    assert len(made._recent) + len(made._previous) <= 2 * further_ranges.MAX_KEYS
