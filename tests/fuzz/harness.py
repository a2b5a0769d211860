"""Variants of the service on this process's loop, and the check of their responses to a
stream of requests.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.service.app_factory import build_app
from jobsvc.settings import Settings
from jobsvc.storage.state import token_file
from jobsvc.web.app.server import ServiceRunner
from jobsvc.web.connection.connection import Connection
from jobsvc.web.connection.fast_connection import FastConnection, FastPathServer
from jobsvc.web.connection.head_cache import CachedMatch
from tests.fuzz.answers import Answer, NotAnAnswer, parse
from tests.fuzz.generator import JOBS, Stream
from tests.fuzz.reference import Expected, Kind, read

DEADLINE_S: Final = 30.0
MARKER: Final = re.compile(rb"m-[0-9]{1,9}")
_CACHED: Final = 50_000


class _WithoutHeadCache(FastConnection):
    """Parses every head."""

    def _match_cached_head(self, data: bytes) -> CachedMatch | None:
        return None


class _ParsingServer(FastPathServer):
    """Serves the fast path, but parses every head."""

    def __call__(self) -> Connection:
        return _WithoutHeadCache(self, loop=self._loop, **self._kwargs)


VARIANTS: Final[dict[str, tuple[type[FastPathServer], bool]]] = {
    "fast path": (FastPathServer, True),
    "without head cache": (_ParsingServer, True),
    "in tasks": (FastPathServer, False),
}
"""By name: the class of the server, and its `fast_path`."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the variants by name, and of aiohttp without this project's connection."""

    variants: dict[str, int]
    aiohttp: int


@asynccontextmanager
async def services(folder: Path) -> AsyncIterator[tuple[Ports, dict[str, str]]]:
    """Run all variants over the same jobs; yield a token of each owner too."""
    secrets = _farm(folder)
    rates = {f"limit_{name}": "1000000/second" for name in ("status", "list", "events", "logs", "download")}
    settings: Any = {**rates, "limit_auth_failures": "1000000/second", "watch": "poll", "port": 0}
    indexed = asyncio.Event()
    app = build_app(Settings(folder / "jobs", state_dir=folder / "state", **settings), indexed.set)
    runner = ServiceRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await indexed.wait()
    loop, listening = asyncio.get_running_loop(), []
    ports = {}
    for name in VARIANTS:
        server = await loop.create_server(_variant(runner, name), "127.0.0.1", 0)
        listening.append(server)
        ports[name] = server.sockets[0].getsockname()[1]
    bare = await loop.create_server(web.Server(_echo), "127.0.0.1", 0)
    try:
        yield Ports(ports, bare.sockets[0].getsockname()[1]), secrets
    finally:
        for server in (*listening, bare):
            server.close()
        await runner.cleanup()


def _variant(runner: ServiceRunner, name: str) -> FastPathServer:
    server = copy.copy(runner.server)
    assert isinstance(server, FastPathServer)
    server.__class__, server.fast_path = VARIANTS[name]
    return server


async def _echo(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(headers={"X-Request-Id": request.headers.get("X-Request-Id", "")})


def _farm(folder: Path) -> dict[str, str]:
    secrets = {}
    (folder / "state").mkdir(mode=0o700)
    for owner, jobs in JOBS.items():
        path = folder / "state" / "tokens.json"
        secrets[owner] = token_file.create(path, owner, [JOBS_READ, OUTPUTS_READ], None)[0]
        for job in jobs:
            place = folder / "jobs" / job
            (place / "output").mkdir(parents=True)
            (place / "output" / "film.mp4").write_bytes(f"{job} ".encode() * 100)
            (place / "render.log").write_bytes(f"log of {job}\n".encode())
            record = {"status": "completed", "owner": owner, "outputPath": "output/film.mp4"}
            (place / "status.json").write_bytes(orjson.dumps(record))
    unfinished = folder / "jobs" / "a-9"
    unfinished.mkdir()
    (unfinished / "status.json").write_bytes(orjson.dumps({"status": "rendering", "owner": "anna"}))
    return secrets


class _Client(asyncio.Protocol):
    """Collects data until the service closes."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def exchange(port: int, pieces: list[bytes]) -> bytes:
    """Send pieces, half-close, and read until the service closes. TimeoutError."""
    transport, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    try:
        for piece in pieces:
            if transport.is_closing():
                break
            transport.write(piece)
            for _ in range(3):  # loopback: it is read by then
                await asyncio.sleep(0)
        if not transport.is_closing():
            transport.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            await client.ended
    finally:
        transport.abort()
    return b"".join(client.received)


class Checker:
    """Compares each variant with the reference parser, and with the responses to single requests."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._alone: dict[bytes, Answer | None] = {}

    async def faults(self, stream: Stream) -> list[str]:
        """Return what is wrong with the responses to a stream."""
        expected = read(stream.data)
        found = []
        for name, port in self._ports.variants.items():
            if fault := await self._fault(expected, port, stream):
                found.append(f"{name}: {fault}")
        if _suits_aiohttp(expected) and (fault := await self._aiohttp_fault(expected, stream)):
            found.append(f"aiohttp: {fault}")
        return found

    async def _fault(self, expected: list[Expected], port: int, stream: Stream) -> str | None:
        methods = [each.method for each in expected]
        try:
            answers = parse(await exchange(port, stream.pieces()), methods)
        except (NotAnAnswer, TimeoutError, ConnectionError) as wrong:
            return f"{type(wrong).__name__}: {wrong}"
        for place, one in enumerate(expected):
            answer = answers[place] if place < len(answers) else None
            last = place == len(expected) - 1
            if fault := await self._fault_of_one(one, answer, last=last):
                return f"answer {place}: {fault}"
            refused = answer is None or _is_refusal(answer)
            if one.kind in {Kind.EITHER, Kind.UNFINISHED} and refused:
                return "answers behind a refusal" if len(answers) > place + 1 else None
        return "more answers than requests" if len(answers) > len(expected) else None

    async def _fault_of_one(self, one: Expected, answer: Answer | None, *, last: bool) -> str | None:
        if one.kind is Kind.UNFINISHED:
            own = answer is None or answer.status >= 400 or not one.marker or answer.request_id == one.marker
            return None if own else f"an answer to another: {answer}"
        if answer is None:
            return f"none to {one.raw[:200]!r}"
        if one.kind is Kind.REFUSED:
            refused = answer.status >= 400 and MARKER.fullmatch(answer.request_id) is None
            return None if refused and last else f"not refused: {answer}"
        if one.kind is Kind.EITHER and _is_refusal(answer):
            return None
        if one.marker and answer.request_id != one.marker:
            return f"to another, not to {one.marker!r}: {answer}"
        alone = await self._answer_alone(one)
        return None if alone is None or alone.essence == answer.essence else f"{answer}, but alone {alone}"

    async def _answer_alone(self, one: Expected) -> Answer | None:
        key = one.raw.replace(one.marker, b"") if one.marker else one.raw
        if key not in self._alone:
            if len(self._alone) > _CACHED:
                self._alone.clear()
            data = await exchange(self._ports.variants["in tasks"], [one.raw])
            self._alone[key] = next(iter(parse(data, [one.method])), None)
        return self._alone[key]

    async def _aiohttp_fault(self, expected: list[Expected], stream: Stream) -> str | None:
        """Compare which requests aiohttp finds if each arrives by itself."""
        data = await exchange(self._ports.aiohttp, [one.raw for one in expected])
        found = [answer.request_id for answer in parse(data, [one.method for one in expected])]
        return None if found == [one.marker for one in expected] else f"{found} of {stream.requests}"


def _suits_aiohttp(expected: list[Expected]) -> bool:
    return all(one.kind is Kind.ANSWERED and not one.upgrade and one.marker for one in expected)


def _is_refusal(answer: Answer) -> bool:
    return answer.status >= 400 and answer.closes and not MARKER.fullmatch(answer.request_id)


async def shrunk(checker: Checker, stream: Stream) -> Stream:
    """Remove requests and cuts while the failure persists."""
    tries = [Stream(stream.requests, ())]
    if await checker.faults(tries[0]):
        stream = tries[0]
    place = 0
    while place < len(stream.requests):
        shorter = Stream(stream.requests[:place] + stream.requests[place + 1 :], stream.cuts)
        if shorter.requests and await checker.faults(shorter):
            stream = shorter
        else:
            place += 1
    for cut in stream.cuts:
        fewer = Stream(stream.requests, tuple(each for each in stream.cuts if each != cut))
        if await checker.faults(fewer):
            stream = fewer
    return stream
