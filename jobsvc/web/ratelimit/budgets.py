"""Budgets: limit the requests of each kind per token, and the failed tokens per address.

aiohttp-ratelimiter wraps the handlers. It is called so that nothing a client sends (X-Forwarded-For, a path)
changes which budget is charged. RateLimit and Retry-After are computed from the counts that decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final, NamedTuple, NoReturn

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttplimiter import Limiter, RateLimitExceeded

from jobsvc.domain.access import Token
from jobsvc.domain.errors import RateLimited
from jobsvc.shared_state.connection import SharedStateConnection
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.ratelimit.request_counter import RequestCounter, create_counter
from jobsvc.web.ratelimit.sliding_window import Rate

UNCHANGED_PER_REQUEST: Final = 10
"""Requests with a 304 response that count as one: no body is produced or sent for them."""
MAX_ADDRESSES: Final = 16_384
"""Addresses whose failures are remembered at once, at most."""

_POLICY: Final = "RateLimit-Policy"
_LIMIT: Final = "RateLimit"


class BudgetState(NamedTuple):
    """State of one token's budget."""

    limit: int
    """Requests per `window` seconds."""
    window: int
    remaining: int
    """Requests that would pass now."""
    reset: int
    """Seconds until the window ends or, if none remain, until one request would pass."""


class CounterStrategy:
    """The strategy of the limiter, which calls test(), then hit(), and ignores the result of hit().

    test() counts the request and hit() does nothing, so that concurrent requests cannot exceed the limit.
    """

    def __init__(self, counter: RequestCounter) -> None:
        self._counter = counter

    async def test(self, _rate: object, key: str) -> bool:
        """Admit and count one request, or do neither and return False."""
        return await self._counter.acquire(key)

    async def hit(self, _rate: object, _key: str) -> bool:
        """Do nothing: `test` has counted the request."""
        return True


class Budget:
    """Limits the requests of one kind for each token. Belongs to the event loop."""

    def __init__(
        self,
        name: str,
        rate: Rate,
        *,
        shared: SharedStateConnection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is a word of lower-case letters; `clock` is in seconds and never goes back.

        With `shared` the rate is for all instances together.
        """
        self.name: Final = name
        self._counter = create_counter(name, rate, shared, clock=clock)
        self._announce(rate)
        self._limiter = Limiter(keyfunc=_token_id, error_handler=self._refuse)
        self._limiter.moving_window = CounterStrategy(self._counter)  # type: ignore[assignment]

    def set_rate(self, rate: Rate) -> None:
        """Apply another rate from now on; see `RequestCounter.set_rate`."""
        self._counter.set_rate(rate)
        self._announce(rate)

    def _announce(self, rate: Rate) -> None:
        """Set what responses say about the rate."""
        self._policy = f'"{self.name}";q={rate.amount};w={rate.seconds}'
        self._line_start = f'{_POLICY}: {self._policy}\r\n{_LIMIT}: "{self.name}";r='

    def limited(self, handler: Handler) -> Handler:
        """Wrap a handler so that each request, with its TOKEN set, consumes one or raises RateLimited."""
        rate = f"{self._counter.limit} per {self._counter.window} seconds"
        return self._limiter.limit(rate, path_id=self.name)(handler)

    async def acquire(self, token: Token) -> bool:
        """Consume one request if one is left; return whether it was."""
        return await self._counter.acquire(self._key(token))

    def try_acquire(self, token: Token) -> bool:
        """Consume one request without waiting, if one is left; return whether it was. See `consume`."""
        return self._counter.consume(self._key(token)) is not None

    def consume(self, token: Token, *, unchanged: bool) -> str | None:
        """Consume one request as the limiter does, without awaiting it; return what `lines` would.

        `unchanged`: the response is a 304. Returns None if no request is left, or if only `limited` can find
        out whether one is.
        """
        key = self._key(token)
        left = self._counter.consume(key)
        if left is None:
            return None
        remaining, ends_in = left
        if unchanged and self._counter.refund(key, UNCHANGED_PER_REQUEST):
            remaining += 1
        return self._lines(key, remaining, ends_in)

    def refund(self, token: Token) -> None:
        """Take back a request whose response is a 304; one in UNCHANGED_PER_REQUEST still counts."""
        self._counter.refund(self._key(token), UNCHANGED_PER_REQUEST)

    def fields(self, token: Token) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return the header fields for a token's budget now (draft-ietf-httpapi-ratelimit-headers-08).

        `r` requests would pass; `t` is the seconds until the window ends or, if `r` is 0, until one would.
        """
        state = self.state(token)
        limit = f'"{self.name}";r={state.remaining};t={state.reset}'
        return (_POLICY, self._policy), (_LIMIT, limit)

    def state(self, token: Token) -> BudgetState:
        """Return the state of a token's budget without consuming a request."""
        counter, key = self._counter, self._key(token)
        remaining, ends_in = counter.remaining(key)
        return BudgetState(counter.limit, counter.window, remaining, self._reset(key, remaining, ends_in))

    def lines(self, token: Token) -> str:
        """Return the same fields as lines of a head."""
        key = self._key(token)
        return self._lines(key, *self._counter.remaining(key))

    def _lines(self, key: str, remaining: int, ends_in: float) -> str:
        return f"{self._line_start}{remaining};t={self._reset(key, remaining, ends_in)}\r\n"

    def _reset(self, key: str, remaining: int, ends_in: float) -> int:
        """Return the seconds until the window ends or, if no request remains, until one would pass."""
        return ceil(ends_in) if remaining else self._counter.wait(key)

    def _key(self, token: Token) -> str:
        """Return the key of a token's count, the same as the limiter's."""
        return f"{token.id}:{self.name}"

    def _refuse(self, request: web.Request, _exceeded: RateLimitExceeded) -> NoReturn:
        counter = self._counter
        raise RateLimited(
            f"The token has used its {counter.limit} {self.name} requests in {counter.window} seconds.",
            retry_after=counter.wait(self._key(request[TOKEN])),
        )


BUDGET: Final = web.RequestKey("jobsvc.budget", Budget)
"""On a request: the budget that it is counted in."""

FURTHER_RANGE: Final = web.RequestKey("jobsvc.further-range", bool)
"""On a request: set if its budget was not charged."""


def refund(request: web.Request) -> None:
    """Refund a request whose response is a 304; call this before the common headers are added."""
    budget = request.get(BUDGET)
    if budget is not None and FURTHER_RANGE not in request:
        budget.refund(request[TOKEN])


def fields(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Return the RateLimit fields of the response to a request; empty if it has no budget."""
    budget = request.get(BUDGET)
    return () if budget is None else budget.fields(request[TOKEN])


def lines(request: web.Request) -> str:
    """Return the same fields as lines of a head."""
    budget = request.get(BUDGET)
    return "" if budget is None else budget.lines(request[TOKEN])


class AuthFailures:
    """Limits the failed tokens from each address. Belongs to the event loop."""

    def __init__(
        self,
        rate: Rate,
        *,
        shared: SharedStateConnection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Apply `rate` to each IPv4 address and each IPv6 /64 network, which belongs to one customer."""
        self._counter = create_counter("failures", rate, shared, clock=clock, keys_cap=MAX_ADDRESSES)

    def set_rate(self, rate: Rate) -> None:
        """Apply another rate from now on; see `RequestCounter.set_rate`."""
        self._counter.set_rate(rate)

    async def hit(self, remote: str | None) -> None:
        """Count a failure of the peer at `remote`. Raises RateLimited if there were too many before it."""
        key = _network(remote)
        if not await self._counter.acquire(key):
            raise RateLimited(
                "Too many invalid tokens or links were sent from this address.",
                retry_after=self._counter.wait(key),
            )


def _token_id(request: web.Request) -> str:
    return request[TOKEN].id


def _network(remote: str | None) -> str:
    """Return the key of the budget that an address consumes; peers without one (Unix sockets) share a key."""
    try:
        address = ip_address(remote or "")
    except ValueError:
        return "elsewhere"
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or address.packed[:8].hex())
