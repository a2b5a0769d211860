from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from aiohttp.typedefs import Handler

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ, Token
from jobsvc.domain.errors import ApiError, BadRequest, Unauthorized
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.token_file import create
from jobsvc.web.app import guard as guard_module
from jobsvc.web.app.guard import Guard
from jobsvc.web.auth.bearer import TOKEN, TokenAuthenticator
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.auth.sessions import Sessions
from jobsvc.web.auth.signing_key import SigningKey
from jobsvc.web.ratelimit import budgets
from jobsvc.web.ratelimit.budgets import AuthFailures, Budget
from jobsvc.web.ratelimit.sliding_window import parse_rate

Client = TestClient[web.Request, web.Application]
Get = Callable[..., Awaitable[tuple[int, dict[str, str]]]]


class Clock:
    now = 6000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tokens.json"


@pytest.fixture
async def guard(state: Path) -> AsyncIterator[Guard]:
    disk = StorageExecutor()
    gate = TokenAuthenticator(state, disk, on_bad_file=lambda _exc: None, on_bad_labels=lambda _exc: None)
    rates = {"status": "10/minute", "download": "5/minute"}
    budgets = {name: Budget(name, parse_rate(rate), clock=Clock()) for name, rate in rates.items()}
    addresses = ClientAddresses(())
    sessions = Sessions(SigningKey(state.parent / "link.key", disk), gate, addresses)
    made = Guard(gate, sessions, budgets, AuthFailures(parse_rate("3/minute"), clock=Clock()), addresses)
    yield made
    disk.close()


@web.middleware
async def plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors as the service does, with the minimum that these tests need."""
    try:
        response = await handler(request)
    except ApiError as refusal:
        code = {"unauthorized": 401, "insufficient-scope": 403, "rate-limited": 429}[refusal.code]
        response = web.Response(status=code, text=refusal.detail)
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = str(refusal.retry_after)
    response.headers.extend(budgets.fields(request))
    return response


async def whoami(request: web.Request) -> web.Response:
    """Return the token of the request."""
    await asyncio.sleep(0)
    return web.Response(text=request[TOKEN].id)


async def unguarded(_request: web.Request) -> web.Response:
    return web.Response()


def by_query(request: web.Request) -> Token:
    if request.query.get("signature") != "good":
        raise Unauthorized("The link is invalid, expired or revoked.")
    return Token("linked", "alice", frozenset({OUTPUTS_READ}), bytes(32), 0)


@pytest.fixture
async def client(guard: Guard) -> AsyncIterator[Client]:
    app = web.Application(middlewares=[plain_errors])
    app.router.add_get("/status/{id}", guard.wrap(whoami, scope=JOBS_READ, budget="status"))
    app.router.add_get("/output", guard.wrap(whoami, scope=OUTPUTS_READ, budget="download"))
    by_link = guard.wrap(
        whoami, scope=OUTPUTS_READ, budget="download", parameters=("signature",), authenticate=by_query
    )
    app.router.add_get("/link", by_link)
    app.router.add_get("/open", unguarded)
    app.cleanup_ctx.append(guard._authenticator.file.cleanup_ctx)
    async with TestClient(TestServer(app)) as made:
        yield made


async def get(client: Client, path: str, secret: str | None = None, **headers: str) -> tuple[int, str]:
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    async with client.get(path, headers=headers) as response:
        return response.status, await response.text()


@pytest.fixture
def alice(state: Path) -> tuple[str, Token]:
    return create(state, "alice", [JOBS_READ])


async def test_token_with_the_scope_reaches_the_handler(alice: tuple[str, Token], client: Client) -> None:
    secret, token = alice
    assert await get(client, "/status/1", secret) == (200, token.id)


async def test_missing_scope_is_403(alice: tuple[str, Token], client: Client) -> None:
    assert (await get(client, "/output", alice[0]))[0] == 403


async def test_request_without_the_scope_consumes_budget(alice: tuple[str, Token], client: Client) -> None:
    statuses = [(await get(client, "/output", alice[0]))[0] for _ in range(7)]
    assert statuses == [403] * 5 + [429] * 2


async def test_burst_passes_exactly_the_limit(alice: tuple[str, Token], client: Client) -> None:
    answers = await asyncio.gather(*(get(client, f"/status/{number}", alice[0]) for number in range(200)))
    assert sorted(status for status, _ in answers) == [200] * 10 + [429] * 190


async def test_every_response_of_a_budgeted_route_reports_the_budget(
    alice: tuple[str, Token], client: Client
) -> None:
    seen, refused = [], None
    for _ in range(6):
        async with client.get("/output", headers={"Authorization": f"Bearer {alice[0]}"}) as response:
            assert response.headers["RateLimit-Policy"] == '"download";q=5;w=60'
            seen.append((response.status, response.headers["RateLimit"]))
            refused = response.headers.get("Retry-After")
    left = [4, 3, 2, 1]
    assert seen[:4] == [(403, f'"download";r={number};t=60') for number in left]
    assert seen[4:] == [(403, '"download";r=0;t=61'), (429, '"download";r=0;t=61')]
    assert refused == "61"


async def test_response_without_a_budget_has_no_ratelimit_fields(client: Client) -> None:
    for path in ("/open", "/status/1"):
        async with client.get(path) as response:
            assert not [name for name in response.headers if name.startswith("RateLimit")]


async def test_wrong_tokens_are_429_above_the_limit_and_a_valid_token_still_passes(
    alice: tuple[str, Token], client: Client
) -> None:
    statuses = [(await get(client, "/status/1", f"wrong{number}"))[0] for number in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert (await get(client, "/status/1", alice[0]))[0] == 200
    async with client.get("/status/1", headers={"Authorization": "Bearer wrong"}) as response:
        assert response.headers["Retry-After"] == "61"


async def test_wrong_tokens_consume_no_token_s_budget(alice: tuple[str, Token], client: Client) -> None:
    for _ in range(30):
        await get(client, "/status/1", "wrong")
    statuses = [(await get(client, "/status/1", alice[0]))[0] for _ in range(11)]
    assert statuses == [200] * 10 + [429]


@pytest.mark.parametrize("value", [b"Bearer \xff\xfe", b"Bearer \xc3\xa9", b"Bearer " + b"a" * 4000, b"\xff"])
async def test_authorization_field_with_invalid_bytes_is_401(client: Client, value: bytes) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /status/1 HTTP/1.1\r\nHost: x\r\nAuthorization: " + value + b"\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"401"
    writer.close()
    await writer.wait_closed()


async def test_request_without_a_token_is_not_counted_as_a_guess(client: Client) -> None:
    assert [(await get(client, "/status/1"))[0] for _ in range(10)] == [401] * 10


async def test_forwarded_address_of_an_untrusted_client_is_ignored(client: Client) -> None:
    headers = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(5)]
    statuses = [(await get(client, "/status/1", "wrong", **header))[0] for header in headers]
    assert statuses == [401, 401, 401, 429, 429]


async def test_route_with_another_authentication_counts_its_failures(client: Client) -> None:
    assert await get(client, "/link?signature=good") == (200, "linked")
    statuses = [(await get(client, "/link?signature=bad"))[0] for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert (await get(client, "/link?signature=good"))[0] == 200


async def test_guarded_handler_keeps_its_name_and_docstring(guard: Guard) -> None:
    guarded = guard.wrap(whoami, scope=JOBS_READ, budget="status")
    assert guarded.__name__ == "whoami"
    assert guarded.__doc__ == whoami.__doc__


async def test_unknown_budget_fails_when_routes_are_built(guard: Guard) -> None:
    with pytest.raises(KeyError):
        guard.wrap(whoami, scope=JOBS_READ, budget="logs")


@pytest.mark.parametrize("dest", ["script", "style", "worker"])
def test_response_by_cookie_or_link_is_no_part_of_a_page(dest: str) -> None:
    fields = {"Sec-Fetch-Dest": dest}
    with pytest.raises(BadRequest, match="no part of a page"):
        guard_module._require_data(make_mocked_request("GET", "/api/jobs", headers=fields))
    fields["Authorization"] = "Bearer t"
    guard_module._require_data(make_mocked_request("GET", "/api/jobs", headers=fields))
