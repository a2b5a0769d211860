"""Hostile streams through a proxy, and victims whose requests share its connections to the service."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz.answers import NotAnAnswer, parse
from tests.fuzz.generator import JOBS, Generator, Stream
from tests.fuzz.smuggling import smuggling
from tests.programs.proxies import proxy

SMUGGLING: Final = 0.6
"""The share of streams that try to hide a request."""
ANSWER_TIMEOUT_S: Final = 5.0
FROM_PROXY: Final = frozenset({400, 408, 502, 503, 504})
"""Sent by a proxy that lost its connection to the service; not a response to another request."""


class Desync(Exception):
    """A victim received another client's response; the message has both."""


async def fuzz_behind(
    program: str, folder: Path, port: int, tokens: dict[str, str], seed: int, count: int
) -> str:
    """Send this many hostile requests through a proxy, with a victim's request after each stream. Desync."""
    random = Random(seed)
    generator = Generator(random, tokens)
    hostile = victims = lost = 0
    async with proxy(program, folder, port) as proxied:
        while hostile < count:
            hidden = random.random() < SMUGGLING
            stream = smuggling(random, tokens["anna"]) if hidden else generator.stream()
            hostile += len(stream.requests)
            sending = asyncio.create_task(_send(proxied, stream))
            for _ in range(2):  # one during the stream, and one after it
                victims += 1
                lost += await _victim(proxied, tokens["vic"], victims, random, stream)
                await sending
    return (
        f"{program}: {hostile} requests, {victims} victims, {lost} of them without an answer of the service"
    )


async def _send(port: int, stream: Stream) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(OSError, TimeoutError):
        for piece in stream.pieces():
            writer.write(piece)
            await asyncio.sleep(0)
        async with asyncio.timeout(0.03):
            while await reader.read(1 << 16):
                pass
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _victim(port: int, token: str, number: int, random: Random, stream: Stream) -> bool:
    """Send a victim's request; return whether it got no response of the service. Desync."""
    job, marker = random.choice(JOBS["vic"]), f"v-{number:09}"
    lines = [f"GET /api/jobs/{job} HTTP/1.1", "Host: jobs.example", f"Authorization: Bearer {token}"]
    data = "\r\n".join([*lines, f"X-Request-Id: {marker}", "Connection: close", "", ""]).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            received = await reader.read(-1)
        answers = parse(_without_chunks(received), [b"GET"])
    except (NotAnAnswer, TimeoutError, OSError) as wrong:
        raise Desync(f"{marker}: {type(wrong).__name__} {wrong}, by {stream.pieces()!r}") from wrong
    finally:
        writer.close()
    if len(answers) == 1 and answers[0].status in FROM_PROXY and not answers[0].request_id:
        return True
    own = len(answers) == 1 and answers[0].status == 200 and answers[0].request_id == marker.encode()
    if not own or f'"id":"{job}"'.encode() not in answers[0].essence[2]:
        raise Desync(f"{marker}, who asked for {job}: {answers}, by {stream.pieces()!r}")
    return False


def _without_chunks(received: bytes) -> bytes:
    """Convert a response that the proxy chunked, or that ends with the connection, to one with a length."""
    head, _, body = received.partition(b"\r\n\r\n")
    if b"content-length:" in head.lower():
        return received
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
