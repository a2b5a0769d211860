"""Budgets: limit the requests of each kind per token, and the failed tokens per address.

aiohttp-ratelimiter decides. It is called so that nothing a client sends (X-Forwarded-For, a path) changes
which budget is charged. RateLimit and Retry-After are computed from the counts that decide.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final, NamedTuple, NoReturn

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttplimiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, parse

from jobsvc.domain.access import Token
from jobsvc.domain.errors import RateLimited
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.ratelimit.sliding_window import OneStep, WindowCounter

UNCHANGED_PER_REQUEST: Final = 10
"""Requests with a 304 response that count as one: no body is produced or sent for them."""
MAX_AMOUNT: Final = 10**9
MAX_ADDRESSES: Final = 16_384
"""Addresses whose failures are remembered at once, at most."""

_POLICY: Final = "RateLimit-Policy"
_LIMIT: Final = "RateLimit"
_RATE: Final = re.compile(r"\s*(\d{1,10})\s*(?:/|per)\s*(?:(\d{1,6})\s*)?[a-z]+\s*", re.ASCII | re.IGNORECASE)


def parse_rate(text: str) -> RateLimitItem:
    """Parse a rate such as "600/minute" or "5 per 10 seconds".

    Raises ValueError if it is invalid; the message says why.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f'{text[:64]!r} is not one rate such as "600/minute" or "5 per 10 seconds"')
    if not 1 <= int(match[1]) <= MAX_AMOUNT or int(match[2] or 1) == 0:
        raise ValueError(f"{text[:64]!r} is not from 1 to {MAX_AMOUNT} requests in a time above 0")
    try:
        return parse(text)
    except ValueError as wrong:
        raise ValueError(f"{text[:64]!r} is not per second, minute, hour, day, month or year") from wrong


class BudgetState(NamedTuple):
    """State of one token's budget."""

    limit: int
    """Requests per `window` seconds."""
    window: int
    remaining: int
    """Requests that would pass now."""
    reset: int
    """Seconds until the window ends or, if none remain, until one request would pass."""


class Budget:
    """Limits the requests of one kind for each token. Belongs to the event loop."""

    def __init__(
        self, name: str, rate: RateLimitItem, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`name` is a word of lower-case letters; `clock` is in seconds and never goes back."""
        self.name: Final = name
        self._counter = WindowCounter(rate, clock=clock)
        self._policy = f'"{name}";q={rate.amount};w={rate.get_expiry()}'
        self._beginning = f'{_POLICY}: {self._policy}\r\n{_LIMIT}: "{name}";r='
        self._limiter = Limiter(keyfunc=_holder, error_handler=self._refuse)
        self._limiter.db = self._counter  # type: ignore[assignment]  # any storage of `limits` works
        # The limiter tests, awaits, hits and ignores the result of the hit: a burst would exceed any limit.
        self._limiter.moving_window = OneStep(self._counter)  # type: ignore[assignment]  # any strategy works

    def limited(self, handler: Handler) -> Handler:
        """Wrap a handler so that each request, with its TOKEN set, consumes one or raises RateLimited."""
        rate = f"{self._counter.limit} per {self._counter.window} seconds"
        return self._limiter.limit(rate, path_id=self.name)(handler)

    def try_acquire(self, token: Token) -> bool:
        """Consume one request if one is left; return whether it was."""
        return self._counter.try_acquire(self._key(token))

    def consume(self, token: Token, *, unchanged: bool) -> str | None:
        """Consume one request as the limiter does, without awaiting it; return what `lines` would.

        `unchanged`: the response is a 304. Returns None if no request is left.
        """
        key = self._key(token)
        room = self._counter.consume(key)
        if room is None:
            return None
        left, ends_in = room
        if unchanged and self._counter.refund(key, UNCHANGED_PER_REQUEST):
            left += 1
        return self._lines(key, left, ends_in)

    def refund(self, token: Token) -> None:
        """Take back a request whose response is a 304; one in UNCHANGED_PER_REQUEST still counts."""
        self._counter.refund(self._key(token), UNCHANGED_PER_REQUEST)

    def fields(self, token: Token) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return the header fields for a token's budget now (draft-ietf-httpapi-ratelimit-headers-08).

        `r` requests would pass; `t` is the seconds until the window ends or, if `r` is 0, until one would.
        """
        key = self._key(token)
        left, ends_in = self._counter.remaining(key)
        return (_POLICY, self._policy), (
            _LIMIT,
            f'"{self.name}";r={left};t={self._reset(key, left, ends_in)}',
        )

    def state(self, token: Token) -> BudgetState:
        """Return the state of a token's budget without consuming a request."""
        counter, key = self._counter, self._key(token)
        remaining, ends_in = counter.remaining(key)
        return BudgetState(counter.limit, counter.window, remaining, self._reset(key, remaining, ends_in))

    def lines(self, token: Token) -> str:
        """Return the same fields as lines of a head."""
        key = self._key(token)
        return self._lines(key, *self._counter.remaining(key))

    def _lines(self, key: str, left: int, ends_in: float) -> str:
        reset = ceil(ends_in) if left else self._reset(key, left, ends_in)
        return f"{self._beginning}{left};t={reset}\r\n"

    def _reset(self, key: str, left: int, ends_in: float) -> int:
        return ceil(ends_in) if left else self._counter.window_state(key).wait()

    def _key(self, token: Token) -> str:
        """Return the key of a token's count, the same as the limiter's."""
        return f"{token.id}:{self.name}"

    def _refuse(self, request: web.Request, _exceeded: RateLimitExceeded) -> NoReturn:
        standing = self._counter.window_state(self._key(request[TOKEN]))
        raise RateLimited(
            f"The token's {standing.limit} {self.name} requests in {standing.window} seconds are used up.",
            retry_after=standing.wait(),
        )


class AuthFailures:
    """Limits the failed tokens from each address. Belongs to the event loop."""

    def __init__(self, rate: RateLimitItem, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Apply `rate` to each IPv4 address and each IPv6 /64 network, which belongs to one customer."""
        self._counter = WindowCounter(rate, clock=clock, keys_cap=MAX_ADDRESSES)

    def hit(self, remote: str | None) -> None:
        """Count a failure of the peer at `remote`. Raises RateLimited if there were too many before it."""
        key = _network(remote)
        if not self._counter.try_acquire(key):
            raise RateLimited(
                "Too many wrong tokens came from this address.",
                retry_after=self._counter.window_state(key).wait(),
            )


def _holder(request: web.Request) -> str:
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
