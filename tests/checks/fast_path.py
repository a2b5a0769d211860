"""Helpers for tests of the fast path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.clients.raw_http import Answer, Connection, Fields
from tests.programs.service_runner import Service

VARYING_FIELDS: Final = {"X-Request-Id", "Date", "RateLimit", "Age"}
"""Fields that differ in any two responses."""


async def warm_up(link: Connection, service: Service, path: str, fields: Fields = ()) -> None:
    """Send requests until everything that a response needs is cached, including the token."""
    for _ in range(4):
        assert (await link.ask("GET", path, fields, token=service.token)).status in {200, 206}


async def wait_until_idle(service: Service) -> None:
    """Wait until the service waits for the next data of its connections: after this response it does."""
    assert (await service.get("/healthz", token=None)).status == 200


@contextmanager
def reading_paused(link: Connection) -> Iterator[None]:
    """Read nothing during a block."""
    link.reader._transport.pause_reading()  # type: ignore[attr-defined]
    yield
    link.reader._transport.resume_reading()  # type: ignore[attr-defined]


async def send_until_blocked(link: Connection, service: Service, make_request: Callable[[int], bytes]) -> int:
    """Request ranges, one for each number in turn, until the service has to wait for the client; return their
    number.
    """
    count = 0
    while not await service.metric("jobsvc_downloads_in_progress"):
        link.send(make_request(count))
        count += 1
    return count


def comparable(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return what two responses to the same request have in common."""
    fields = [(name, "" if name in VARYING_FIELDS else value) for name, value in answer.headers.items()]
    return answer.status, sorted(fields), answer.body
