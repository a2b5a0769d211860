"""Limits as clients see them: what remains, when more is available, and which budget a request counts
against.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ
from jobsvc.settings import Settings
from jobsvc.web.ratelimit import sliding_window
from tests.clients.raw_http import Answer, Connection, request
from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, MakeToken, Serve
from tests.programs.service_runner import Service

STATUS: Final = "/api/jobs/job-1"
DOWNLOAD: Final = "/api/jobs/job-1/download"
LINKS: Final = "/api/jobs/job-1/download-links"
LARGE: Final = 64_000_000
"""Bytes; more than the buffers of any connection hold."""
WRONG: Final = "jsvc_" + "x" * 43


def ratelimit_state(answer: Answer) -> tuple[str, int, int]:
    """Parse a RateLimit field: policy, remaining requests, and seconds."""
    field = re.fullmatch(r'"([a-z]+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert field is not None, answer.headers["RateLimit"]
    return field[1], int(field[2]), int(field[3])


def assert_rate_limited(answer: Answer) -> int:
    """Check what every 429 has, and return its Retry-After."""
    assert (answer.status, answer.code) == (429, "rate-limited")
    assert re.fullmatch("[1-9][0-9]*", answer.headers["Retry-After"])
    return int(answer.headers["Retry-After"])


async def statuses(service: Service, count: int, target: str = STATUS, token: str | None = "") -> list[int]:
    """Send this many requests one after the other and return their statuses."""
    return [(await service.get(target, token=token)).status for _ in range(count)]


async def test_one_in_ten_304_responses_counts(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=b"one\n", output=b"film")
    service = await serve(limit_status="3/hour", limit_download="3/hour", limit_logs="3/hour")
    for target in (STATUS, DOWNLOAD, "/api/jobs/job-1/logs"):
        first = await service.get(target)
        assert ratelimit_state(first)[1] == 2
        known = ("If-None-Match", first.headers["ETag"])
        for number in range(1, 21):
            again = await service.get(target, known)
            assert again.status == 304
            assert ratelimit_state(again)[1] == 2 - number // 10
        assert assert_rate_limited(await service.get(target)) > 0


async def at_once(service: Service, count: int, method: str, target: str, *tokens: str | None) -> list[int]:
    """Send this many requests with each token at the same time, each on a connection of its own."""
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(service.connect()) for _ in range(count * len(tokens))]
        for link, token in zip(links, tokens * count, strict=True):
            link.send(request(method, target, token=token))
        return [(await link.answer(method)).status for link in links]


@pytest.mark.parametrize(
    ("name", "method", "target"),
    [
        ("status", "GET", STATUS),
        ("status", "HEAD", STATUS),
        ("status", "GET", "/api/jobs/unknown"),
        ("logs", "GET", f"{STATUS}/logs"),
        ("download", "GET", DOWNLOAD),
        ("download", "HEAD", DOWNLOAD),
        ("download", "GET", "/api/jobs/unknown/download"),
        ("download", "POST", LINKS),
    ],
)
async def test_each_response_reports_what_remains_and_exactly_that_many_pass(
    serve: Serve, make_job: MakeJob, name: str, method: str, target: str
) -> None:
    make_job(output=b"film")
    service = await serve(**dict.fromkeys(("limit_status", "limit_logs", "limit_download"), "7/hour"))
    async with service.connect() as link:
        for rest in reversed(range(7)):
            answer = await link.ask(method, target, token=service.token)
            assert answer.status in {200, 201, 404}
            assert answer.headers["RateLimit-Policy"] == f'"{name}";q=7;w=3600'
            assert ratelimit_state(answer)[:2] == (name, rest)
            assert 0 < ratelimit_state(answer)[2] <= 3600
        for _ in range(3):
            answer = await link.ask(method, target, token=service.token)
            assert answer.status == 429
            assert ratelimit_state(answer)[:2] == (name, 0)
            # A second may end between the two.
            assert int(answer.headers["Retry-After"]) - ratelimit_state(answer)[2] in {0, 1}
            assert method == "HEAD" or 0 < assert_rate_limited(answer) <= 2 * 3600


async def test_budget_of_a_token_is_shared_by_all_jobs_and_separate_per_kind(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    for number in range(5):
        make_job(f"job-{number}", output=b"film")
    other = make_token()
    service = await serve(limit_status="5/hour", limit_download="3/hour")
    for number in range(5):
        assert (await service.get(f"/api/jobs/job-{number}")).status == 200
    assert_rate_limited(await service.get("/api/jobs/job-4"))
    assert_rate_limited(await service.get("/api/jobs/unknown"))
    assert_rate_limited(await service.get(STATUS, ("If-None-Match", "*")))
    assert await statuses(service, 4, DOWNLOAD) == [200, 200, 200, 429]
    assert (await service.ask("POST", LINKS)).status == 429
    assert await statuses(service, 3, f"{STATUS}/logs") == [404] * 3
    assert await statuses(service, 6, token=other) == [200] * 5 + [429], "another token of the same owner"
    assert await statuses(service, 3, "/healthz") == [200] * 3
    assert await statuses(service, 3, "/api/openapi.json") == [200] * 3
    assert await service.metric('jobsvc_rate_limited_total{budget="status"}') == 4
    assert await service.metric('jobsvc_rate_limited_total{budget="download"}') == 2


async def test_request_refused_for_another_reason_is_counted(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    """Otherwise a client could request without limit what it may not have."""
    make_job(output=b"film")
    looks, stranger = make_token(scopes=[JOBS_READ]), make_token("bert")
    service = await serve(limit_status="2/hour", limit_download="2/hour")
    assert await statuses(service, 3, DOWNLOAD, looks) == [403, 403, 429]
    assert await statuses(service, 3, STATUS, stranger) == [404, 404, 429]
    wrong = [("If-Match", '"other"'), ("Range", "bytes=9-"), ("Range", "bytes=0-")]
    answers = [await service.get(DOWNLOAD, field) for field in wrong]
    assert [answer.status for answer in answers] == [412, 416, 429]


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("method", "target"), [("GET", STATUS), ("HEAD", STATUS), ("GET", DOWNLOAD), ("POST", LINKS)]
)
async def test_burst_passes_exactly_the_limit_of_each_token(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, method: str, target: str
) -> None:
    make_job(output=b"film")
    other = make_token()
    limits = dict.fromkeys(("limit_status", "limit_download"), "10/hour")
    service = await serve(**limits, max_downloads=1000, max_downloads_per_token=1000)
    answers = await at_once(service, 60, method, target, service.token, other)
    for turn in (0, 1):
        mine = answers[turn::2]
        assert sum(status < 300 for status in mine) == 10
        assert mine.count(429) == 50
    again = await at_once(service, 20, method, target, service.token)
    assert again == [429] * 20


async def test_burst_on_one_connection_passes_exactly_the_limit(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve(limit_status="10/hour")
    async with service.connect() as link:
        link.send(request("GET", STATUS, token=service.token) * 50)
        answers = [(await link.answer()).status for _ in range(50)]
    assert answers == [200] * 10 + [429] * 40


@pytest.mark.parametrize(("amount", "window"), [(3, 1), (4, 2), (1, 2)])
async def test_request_passes_exactly_after_retry_after(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, amount: int, window: int
) -> None:
    """A client that waits for Retry-After passes, and Retry-After is not a second too long.

    Repeated three times, because then the previous window counts too.
    """
    make_job()
    monkeypatch.setitem(sliding_window._SECONDS, "second", window)
    service = await serve(limit_status=f"{amount}/second")
    async with service.connect() as link:

        async def ask() -> tuple[float, Answer, float]:
            sent_at = time.monotonic()
            answer = await link.ask("GET", STATUS, token=service.token)
            return sent_at, answer, time.monotonic()

        for _ in range(3):
            before, answer, after = await ask()
            while answer.status == 200:
                before, answer, after = await ask()
            seconds = assert_rate_limited(answer)
            sent_at, answer, answered_at = await ask()
            while answer.status == 429:
                assert sent_at < after + seconds, "the client waited for Retry-After"
                await asyncio.sleep(0.005)
                sent_at, answer, answered_at = await ask()
            assert answer.status == 200
            assert answered_at > before + seconds - 1.01, "Retry-After was longer than necessary"


@asynccontextmanager
async def from_address(service: Service, address: str) -> AsyncIterator[Connection]:
    """Connect from another address of this host: all of 127.0.0.0/8 are usable."""
    plain = socket.socket()
    plain.settimeout(0)
    plain.bind((address, 0))
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", service.port))
    link = Connection(*await asyncio.open_connection(sock=plain))
    try:
        yield link
    finally:
        await link.close()


async def failures(
    service: Service, count: int, *forwarded: str, address: str = "127.0.0.1", token: str = WRONG
) -> list[int]:
    """Present a wrong token this many times."""
    fields = [("X-Forwarded-For", line) for line in forwarded]
    async with from_address(service, address) as link:
        return [(await link.ask("GET", STATUS, fields, token=token)).status for _ in range(count)]


async def test_wrong_tokens_are_counted_by_client_address(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=b"film")
    service = await serve(limit_auth_failures="3/hour")
    async with service.connect() as link:
        for target in (STATUS, DOWNLOAD, "/api/jobs/unknown"):
            wrong = await link.ask("GET", target, token=WRONG + target[-1])
            assert (wrong.status, wrong.code) == (401, "unauthorized")
        for method, target in (("GET", STATUS), ("GET", DOWNLOAD), ("POST", LINKS)):
            answer = await link.ask(method, target, token=WRONG)
            assert 0 < assert_rate_limited(answer) <= 2 * 3600
            assert "RateLimit" not in answer.headers, "no token's budget is consumed"
        assert (await link.ask("GET", STATUS, token=service.token)).status == 200, "a valid token passes"
        assert (await link.ask("GET", STATUS)).status == 401, "a missing token is not counted"
    assert await failures(service, 4, address="127.0.0.2") == [401] * 3 + [429]
    assert await service.metric('jobsvc_rate_limited_total{budget="auth-failures"}') == 4
    assert await service.metric("jobsvc_auth_failures_total") == 3 + 1 + 3


async def test_forwarded_address_of_an_untrusted_client_is_ignored(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve(limit_auth_failures="3/hour", trusted_proxies=(ip_network("10.0.0.0/8"),))
    for number in range(3):
        assert await failures(service, 1, f"192.0.2.{number}") == [401]
    assert await failures(service, 1, "192.0.2.9") == [429]
    assert await failures(service, 1, "127.0.0.2") == [429]
    assert await failures(service, 3, "127.0.0.1", address="127.0.0.2") == [401] * 3, (
        "others are not affected"
    )


async def test_address_added_by_the_trusted_proxy_counts_and_not_one_sent_by_its_client(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    proxies = (ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"))
    service = await serve(limit_auth_failures="3/hour", trusted_proxies=proxies)
    assert await failures(service, 4, "192.0.2.1") == [401] * 3 + [429]
    assert await failures(service, 1, "192.0.2.2") == [401], "each client is counted separately"
    for made_up in (
        ("203.0.113.1, 192.0.2.1",),
        ("203.0.113.2", "192.0.2.1"),
        ("203.0.113.3, 192.0.2.1, 10.1.2.3",),
        ("127.0.0.1, 192.0.2.1",),
        ("unknown, 192.0.2.1",),
        ("192.0.2.1 ",),
        ("::ffff:192.0.2.1",),
    ):
        assert await failures(service, 1, *made_up) == [429], made_up
    assert await failures(service, 4, "2001:db8::1") == [401] * 3 + [429]
    assert await failures(service, 1, "2001:db8::ffff:2") == [429], "one IPv6 network"
    assert await failures(service, 1, "2001:db8:0:1::1") == [401]
    assert await failures(service, 3, "192.0.2.1", address="127.0.0.2") == [401] * 3, "not a trusted proxy"
    assert await failures(service, 4) == [401] * 3 + [429], "without the field the proxy is counted"
    assert await failures(service, 1, "nonsense") == [429]


@asynccontextmanager
async def stalled(service: Service, token: str | None = "") -> AsyncIterator[Connection]:
    """Start a download that makes no progress."""
    async with service.connect(receive_buffer=65_536) as link:
        link.send(request("GET", DOWNLOAD, token=service.token if token == "" else token))
        assert (await link.head())[1] == 200
        yield link


@pytest.fixture
def large(make_job: MakeJob) -> None:
    with (make_job(output=b"film") / "output" / "film.mp4").open("r+b") as file:
        file.truncate(LARGE)


def full(answer: Answer) -> bool:
    """Return whether no further download is accepted."""
    if answer.status != 429:
        return False
    assert answer.code == "too-many-downloads"
    assert int(answer.headers["Retry-After"]) > 0
    return True


async def test_number_of_parallel_downloads_per_token_is_limited(
    serve: Serve, large: None, make_token: MakeToken
) -> None:
    other = make_token()
    service = await serve(max_downloads_per_token=2, max_downloads=3)
    async with stalled(service), stalled(service) as second:
        assert full(await service.download("job-1"))
        assert full(await service.download("job-1", ("Range", "bytes=0-0")))
        assert (await service.ask("HEAD", DOWNLOAD)).status == 200, "none is sent"
        assert (await service.get(STATUS)).status == 200
        assert await service.metric("jobsvc_downloads_in_progress") == 2
        async with stalled(service, other):
            assert full(await service.download("job-1", token=other)), "the limit of all downloads"
        await second.reset()
        await wait_for_slot(service, other)
    await wait_for_slot(service)
    assert await service.metric('jobsvc_downloads_refused_total{limit="token"}') >= 2
    assert await service.metric('jobsvc_downloads_refused_total{limit="all"}') >= 1


async def wait_for_slot(service: Service, token: str | None = "") -> None:
    """Wait until one more download is accepted, with the service's own token or another."""
    ends = time.monotonic() + 15
    while full(await service.download("job-1", ("Range", "bytes=0-0"), token=token)):
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def test_limit_of_all_downloads_applies_to_all_tokens(
    serve: Serve, large: None, make_token: MakeToken
) -> None:
    tokens = [make_token() for _ in range(4)]
    admin = make_token("ops", [ADMIN])
    service = await serve(max_downloads_per_token=2, max_downloads=3)
    async with stalled(service, tokens[0]), stalled(service, tokens[1]), stalled(service, tokens[2]):
        for token in (tokens[0], tokens[3], admin):
            assert full(await service.download("job-1", token=token))
    await until_idle(service)


async def test_slot_is_released_however_a_download_ends(serve: Serve, large: None) -> None:
    service = await serve(max_downloads_per_token=1, max_downloads=1)
    for fields in (
        [("If-None-Match", "*")],
        [("If-Match", '"other"')],
        [("Range", "bytes=64000000-")],
        [("Range", "bytes=0-9")],
        [("Range", "bytes=0-999999")],
        [("Range", "bytes=0-9,5000000-5999999")],
    ):
        assert (await service.download("job-1", *fields)).status in {206, 304, 412, 416}
        assert (await service.download("unknown")).status == 404
    for _ in range(3):
        async with stalled(service) as link:
            assert full(await service.download("job-1"))
            await link.reset()
        await wait_for_slot(service)
    async with stalled(service) as link:
        await link.read(LARGE)
    await wait_for_slot(service)


@pytest.mark.both_loops
async def test_next_download_may_start_as_soon_as_one_is_complete(
    serve: Serve, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsvc.web.ratelimit.download_slots.BRIEF_WAIT_S", 10.0)
    service = await serve(max_downloads_per_token=1, max_downloads=1)
    async with service.connect() as one, service.connect() as other:
        for link in (one, other) * 100:
            answer = await link.ask("GET", DOWNLOAD, [("Range", "bytes=0-199999")], token=service.token)
            assert answer.status == 206


async def test_burst_of_downloads_takes_exactly_the_available_slots(serve: Serve, large: None) -> None:
    service = await serve(max_downloads_per_token=5, max_downloads=100)
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(service.connect(receive_buffer=65_536)) for _ in range(40)]
        for link in links:
            link.send(request("GET", DOWNLOAD, token=service.token))
        answered = [(await link.head())[1] for link in links]
        assert sorted(answered) == [200] * 5 + [429] * 35
    await until_idle(service)


async def until_idle(service: Service) -> None:
    """Wait until no download is in progress."""
    ends = time.monotonic() + 15
    while await service.metric("jobsvc_downloads_in_progress"):
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def test_page_can_be_loaded_once_a_second(serve: Serve, make_job: MakeJob, jobs_root: Path) -> None:
    make_job()
    service = await serve(limit_events=Settings(jobs_root).limit_events)
    for _ in range(60):
        async with open_event_stream(service, "/api/events") as stream:
            assert stream.status == 200
    assert (await service.get("/api/events")).code == "rate-limited"
