from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.access import Token
from jobsvc.domain.errors import RateLimited
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.ratelimit.budgets import MAX_ADDRESSES, AuthFailures, Budget, CounterStrategy
from jobsvc.web.ratelimit.sliding_window import Rate, WindowCounter, parse_rate


@dataclass
class Clock:
    now: float = 6000.0

    def __call__(self) -> float:
        return self.now


def token(token_id: str) -> Token:
    return Token(token_id, "alice", frozenset(), bytes(32), 0)


def request_by(token_id: str, path: str = "/", **headers: str) -> web.Request:
    request = make_mocked_request("GET", path, headers=headers)
    request[TOKEN] = token(token_id)
    return request


async def answer(_request: web.Request) -> web.Response:
    await asyncio.sleep(0)
    return web.Response()


async def count_passing(budget: Budget, times: int, holder: str = "a") -> int:
    """Send this many requests at once and return how many passed."""
    limited = budget.limited(answer)
    results = await asyncio.gather(
        *(limited(request_by(holder)) for _ in range(times)), return_exceptions=True
    )
    assert all(isinstance(result, web.Response | RateLimited) for result in results)
    return sum(isinstance(result, web.Response) for result in results)


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("600/minute", 600, 60),
        ("1/second", 1, 1),
        ("20/hour", 20, 3600),
        ("7/day", 7, 86_400),
        ("999999999/minute", 999_999_999, 60),
    ],
)
def test_rate_is_a_count_per_time(text: str, amount: int, seconds: int) -> None:
    assert parse_rate(text) == (amount, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "600",
        "600/",
        "/minute",
        "600/fortnight",
        "5 per minute",
        "5/10 seconds",
        "5/minutes",
        "5/MINUTE",
        " 5/minute",
        "5/minute\n",
        "5/second;100/minute",
        "5/second,100/minute",
        "5/second|100/minute",
        "0/minute",
        "05/minute",
        "-5/minute",
        "5.5/minute",
        "5/0 seconds",
        "5/00seconds",
        "5 per 0 minutes",
        "1000000000/minute",
        "9" * 10_000 + "/minute",
        "5/" + "9" * 10_000 + "minutes",
        "٣/minute",
        "5/minute\0",
    ],
)
def test_anything_but_one_rate_above_zero_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate such as 600/minute") as refused:
        parse_rate(text)
    assert len(str(refused.value)) < 300


@given(st.text(max_size=20) | st.from_regex(r"\s?[0-9]{1,3}\s?(/|per)\s?[0-9]{0,2}\s?(second|minute|hour)s?"))
def test_any_text_is_a_rate_or_rejected(text: str) -> None:
    try:
        rate = parse_rate(text)
    except ValueError:
        return
    assert rate.amount >= 1
    assert rate.seconds >= 1


async def test_testing_a_limit_counts_and_hitting_it_does_not() -> None:
    counter = WindowCounter(Rate(3, 60), clock=Clock())
    strategy = CounterStrategy(counter)
    assert [await strategy.test(None, "key") for _ in range(5)] == [True, True, True, False, False]
    assert await strategy.hit(None, "other")
    assert counter.remaining("other")[0] == 3


async def test_burst_passes_exactly_the_budget() -> None:
    budget = Budget("status", parse_rate("10/minute"), clock=Clock())
    assert await count_passing(budget, 200) == 10


async def test_each_token_and_each_kind_of_request_has_its_own_budget() -> None:
    clock = Clock()
    budgets = [Budget(name, parse_rate("10/minute"), clock=clock) for name in ("status", "list")]
    assert [await count_passing(budget, 20, token) for budget in budgets for token in "ab"] == [10] * 4


async def test_all_jobs_of_a_route_share_one_budget() -> None:
    limited = Budget("status", parse_rate("10/minute"), clock=Clock()).limited(answer)
    for number in range(10):
        await limited(request_by("a", f"/api/jobs/{number}"))
    with pytest.raises(RateLimited):
        await limited(request_by("a", "/api/jobs/other"))


async def test_two_routes_of_a_budget_share_it() -> None:
    budget = Budget("status", parse_rate("10/minute"), clock=Clock())
    assert await count_passing(budget, 6) + await count_passing(budget, 6) == 10


async def test_no_header_changes_which_budget_is_consumed() -> None:
    limited = Budget("status", parse_rate("3/minute"), clock=Clock()).limited(answer)
    passed = 0
    for number in range(10):
        forwarded = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"}
        try:
            await limited(request_by("a", **forwarded))
        except RateLimited:
            continue
        passed += 1
    assert passed == 3


async def test_request_passes_after_retry_after_and_not_a_second_earlier() -> None:
    clock = Clock(6010.0)
    budget = Budget("status", parse_rate("10/minute"), clock=clock)
    await count_passing(budget, 10)
    with pytest.raises(RateLimited) as refused:
        await budget.limited(answer)(request_by("a"))
    assert refused.value.retry_after == 51
    clock.now += 49.9
    assert await count_passing(budget, 1) == 0
    clock.now = 6010.0 + 51
    assert await count_passing(budget, 1) == 1


async def test_refusal_names_the_budget_and_no_token() -> None:
    budget = Budget("status", parse_rate("1/minute"), clock=Clock())
    await count_passing(budget, 1, "0123456789ab")
    with pytest.raises(RateLimited) as refused:
        await budget.limited(answer)(request_by("0123456789ab"))
    assert "1 status requests in 60 seconds" in refused.value.detail
    assert "0123456789ab" not in refused.value.detail


async def test_error_of_the_handler_passes_through_and_is_counted() -> None:
    budget = Budget("status", parse_rate("10/minute"), clock=Clock())

    async def fails(_request: web.Request) -> web.Response:
        raise LookupError

    with pytest.raises(LookupError):
        await budget.limited(fails)(request_by("a"))
    assert dict(budget.fields(token("a")))["RateLimit"] == '"status";r=9;t=60'


async def test_ratelimit_fields_report_limit_and_remaining() -> None:
    clock = Clock(6029.5)
    budget = Budget("status", parse_rate("600/minute"), clock=clock)
    await count_passing(budget, 1)
    assert budget.fields(token("a")) == (
        ("RateLimit-Policy", '"status";q=600;w=60'),
        ("RateLimit", '"status";r=599;t=31'),
    )


async def test_ratelimit_fields_of_an_exhausted_budget_report_when_it_resets() -> None:
    budget = Budget("download", parse_rate("10/minute"), clock=Clock(6010.0))
    await count_passing(budget, 10)
    assert dict(budget.fields(token("a")))["RateLimit"] == '"download";r=0;t=51'


async def test_reading_the_ratelimit_fields_counts_nothing() -> None:
    budget = Budget("status", parse_rate("10/minute"), clock=Clock())
    for _ in range(50):
        budget.fields(token("a"))
    assert await count_passing(budget, 20) == 10


def failures(rate: str = "20/minute", clock: Clock | None = None) -> AuthFailures:
    return AuthFailures(parse_rate(rate), clock=clock or Clock())


async def count_counted_failures(some: AuthFailures, remote: str | None, tries: int = 30) -> int:
    """Fail this often, and return how many failures got the normal response."""
    counted = 0
    for _ in range(tries):
        try:
            await some.hit(remote)
        except RateLimited:
            continue
        counted += 1
    return counted


async def test_address_may_fail_up_to_the_limit_and_gets_retry_after() -> None:
    clock = Clock(6010.0)
    some = failures(clock=clock)
    assert await count_counted_failures(some, "192.0.2.1") == 20
    with pytest.raises(RateLimited) as refused:
        await some.hit("192.0.2.1")
    assert refused.value.retry_after == 51
    clock.now += 51
    await some.hit("192.0.2.1")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        (None, "", True),
        (None, "no address", True),
        (None, "192.0.2.1", False),
    ],
)
async def test_addresses_of_one_ipv6_network_share_a_budget(
    first: str | None,
    second: str | None,
    same: bool,  # noqa: FBT001 - a column
) -> None:
    some = failures()
    await count_counted_failures(some, first)
    assert await count_counted_failures(some, second) == (0 if same else 20)


async def test_number_of_remembered_addresses_is_bounded() -> None:
    some = failures("1/minute")
    for number in range(MAX_ADDRESSES + 500):
        await some.hit(f"2001:db8:{number:x}::1")
    assert isinstance(some._counter, WindowCounter)
    assert len(some._counter) == MAX_ADDRESSES


def test_ratelimit_fields_are_structured_fields() -> None:
    budget = Budget("logs", Rate(5, 10), clock=Clock())
    fields = dict(budget.fields(token("a")))
    assert re.fullmatch(r'"[a-z]+";q=\d+;w=\d+', fields["RateLimit-Policy"])
    assert re.fullmatch(r'"[a-z]+";r=\d+;t=\d+', fields["RateLimit"])
