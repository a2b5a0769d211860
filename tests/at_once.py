"""What the tests of answers that take no wait have in common."""

from __future__ import annotations

from typing import Final

from tests.running import Service
from tests.speaking import Answer, Connection, Fields

OWN: Final = {"X-Request-Id", "Date", "RateLimit", "Age"}
"""Fields that no two answers have alike."""


async def warm(link: Connection, service: Service, path: str, fields: Fields = ()) -> None:
    """Ask until all is known that an answer needs, and the service knows who asks."""
    for _ in range(4):
        assert (await link.ask("GET", path, fields, token=service.token)).status in {200, 206}


async def idle(service: Service) -> None:
    """Let the service come to wait for what its connections ask for next: by this answer it has."""
    assert (await service.get("/healthz", token=None)).status == 200


def essence(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """Give what two answers to the same question have alike."""
    fields = [(name, "" if name in OWN else value) for name, value in answer.headers.items()]
    return answer.status, sorted(fields), answer.body
