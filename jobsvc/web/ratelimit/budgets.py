"""Budgets: so many requests of a kind for each token, so many failed tokens for each address.

aiohttp-ratelimiter decides, asked so that nothing a client sends (X-Forwarded-For, a path) changes whose
budget is spent. What is said of a budget (RateLimit, Retry-After) is read off the counts that decide.
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
"""So many requests count as one, whose answer is a 304: no body is made or sent for it."""
MAX_AMOUNT: Final = 10**9
MAX_ADDRESSES: Final = 16_384
"""The most addresses whose failures are remembered at once."""

_POLICY: Final = "RateLimit-Policy"
_LIMIT: Final = "RateLimit"
_RATE: Final = re.compile(r"\s*(\d{1,10})\s*(?:/|per)\s*(?:(\d{1,6})\s*)?[a-z]+\s*", re.ASCII | re.IGNORECASE)


def parse_rate(text: str) -> RateLimitItem:
    """Read a rate such as "600/minute" or "5 per 10 seconds"; ValueError says what is wrong with it."""
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
    """How one token stands in one budget."""

    limit: int
    """Requests in `window` seconds."""
    window: int
    remaining: int
    """Requests that would pass now."""
    reset: int
    """Seconds until the window ends or, with none remaining, until one request would pass."""


class Budget:
    """What each token may spend on one kind of request. Belongs to the event loop."""

    def __init__(
        self, name: str, rate: RateLimitItem, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Call it `name`, a word of lower-case letters; `clock` is in seconds and never goes back."""
        self.name: Final = name
        self._counter = WindowCounter(rate, clock=clock)
        self._policy = f'"{name}";q={rate.amount};w={rate.get_expiry()}'
        self._beginning = f'{_POLICY}: {self._policy}\r\n{_LIMIT}: "{name}";r='
        self._limiter = Limiter(keyfunc=_holder, error_handler=self._refuse)
        self._limiter.db = self._counter  # type: ignore[assignment]  # any storage of `limits` does
        # The limiter tests, awaits, and hits without heeding the result: a burst would pass any limit.
        self._limiter.moving_window = OneStep(self._counter)  # type: ignore[assignment]  # any strategy does

    def limited(self, handler: Handler) -> Handler:
        """Wrap a handler so that each request, with its TOKEN on it, spends one or raises RateLimited."""
        rate = f"{self._counter.limit} per {self._counter.window} seconds"
        return self._limiter.limit(rate, path_id=self.name)(handler)

    def try_acquire(self, token: Token) -> bool:
        """Spend one, if there is one left."""
        return self._counter.try_acquire(self._key(token))

    def consume(self, token: Token, *, unchanged: bool) -> str | None:
        """Spend one in the limiter's own step, for who must not wait for it; None where there is none left.

        `unchanged`: the answer is that there is nothing new. Returns what `lines` would.
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
        """Count a request less whose answer is that there is nothing new."""
        self._counter.refund(self._key(token), UNCHANGED_PER_REQUEST)

    def fields(self, token: Token) -> tuple[tuple[str, str], tuple[str, str]]:
        """Say how a token stands now, as header fields (draft-ietf-httpapi-ratelimit-headers-08).

        `r` requests would pass; `t` is the seconds until the window ends or, where `r` is 0, until one would.
        """
        key = self._key(token)
        left, ends_in = self._counter.remaining(key)
        return (_POLICY, self._policy), (
            _LIMIT,
            f'"{self.name}";r={left};t={self._reset(key, left, ends_in)}',
        )

    def state(self, token: Token) -> BudgetState:
        """Return how a token stands, counting nothing."""
        counter, key = self._counter, self._key(token)
        remaining, ends_in = counter.remaining(key)
        return BudgetState(counter.limit, counter.window, remaining, self._reset(key, remaining, ends_in))

    def lines(self, token: Token) -> str:
        """Write the same as lines of a head."""
        key = self._key(token)
        return self._lines(key, *self._counter.remaining(key))

    def _lines(self, key: str, left: int, ends_in: float) -> str:
        reset = ceil(ends_in) if left else self._reset(key, left, ends_in)
        return f"{self._beginning}{left};t={reset}\r\n"

    def _reset(self, key: str, left: int, ends_in: float) -> int:
        return ceil(ends_in) if left else self._counter.window_state(key).wait()

    def _key(self, token: Token) -> str:
        """Name an account as the limiter does."""
        return f"{token.id}:{self.name}"

    def _refuse(self, request: web.Request, _exceeded: RateLimitExceeded) -> NoReturn:
        standing = self._counter.window_state(self._key(request[TOKEN]))
        raise RateLimited(
            f"The token's {standing.limit} {self.name} requests in {standing.window} seconds are used up.",
            retry_after=standing.wait(),
        )


class AuthFailures:
    """How many failed tokens an address may present. Belongs to the event loop."""

    def __init__(self, rate: RateLimitItem, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `rate` to each IPv4 address and each IPv6 network of 64 bits, which is one customer's."""
        self._counter = WindowCounter(rate, clock=clock, keys_cap=MAX_ADDRESSES)

    def hit(self, remote: str | None) -> None:
        """Count a failure of the peer at `remote`; RateLimited if there were too many before it."""
        key = _network(remote)
        if not self._counter.try_acquire(key):
            raise RateLimited(
                "Too many wrong tokens came from this address.",
                retry_after=self._counter.window_state(key).wait(),
            )


def _holder(request: web.Request) -> str:
    return request[TOKEN].id


def _network(remote: str | None) -> str:
    """Name whose budget an address spends; peers without one (a Unix socket) share theirs."""
    try:
        address = ip_address(remote or "")
    except ValueError:
        return "elsewhere"
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or address.packed[:8].hex())
