"""Mutations of a request."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

Mutation = Callable[[Random, bytes], bytes]


def _inserted(*texts: bytes) -> Mutation:
    def mutate(random: Random, request: bytes) -> bytes:
        at = random.randrange(len(request) + 1)
        return request[:at] + random.choice(texts) + request[at:]

    return mutate


def _field(*lines: bytes) -> Mutation:
    """Add a line after the request line or another line."""

    def mutate(random: Random, request: bytes) -> bytes:
        ends = [at for at in range(len(request)) if request.startswith(b"\r\n", at)][:8] or [len(request)]
        at = random.choice(ends)
        return request[:at] + b"\r\n" + random.choice(lines) + request[at:]

    return mutate


def _replaced(*pairs: tuple[bytes, bytes]) -> Mutation:
    def mutate(random: Random, request: bytes) -> bytes:
        before, after = random.choice(pairs)
        return request.replace(before, after, 1)

    return mutate


def _flipped(random: Random, request: bytes) -> bytes:
    at = random.randrange(len(request))
    return request[:at] + bytes([random.randrange(256)]) + request[at + 1 :]


def _deleted(random: Random, request: bytes) -> bytes:
    at = random.randrange(len(request))
    return request[:at] + request[at + random.choice((1, 1, 2, 10)) :]


def _line_doubled(random: Random, request: bytes) -> bytes:
    lines = request.split(b"\r\n")
    at = random.randrange(len(lines))
    return b"\r\n".join([*lines[:at], lines[at], *lines[at:]])


_METHODS: Final = (
    b"CONNECT",
    b"connect",
    b"Connect",
    b"PRI",
    b"get",
    b"FOO",
    b"POST",
    b"HEAD",
    b"GET\t",
    b"",
)
_VERSIONS: Final = (
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"HTTP/0.9",
    b"http/1.1",
    b"HTTP/1.10",
    b"",
    b"HTTP/1.1 ",
)
MUTATIONS: Final[tuple[Mutation, ...]] = (
    _flipped,
    _deleted,
    _line_doubled,
    _inserted(
        b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"\r\n ", b"\r\n\t", b"\xff", b"%00", b"\r\n\r\n"
    ),
    _field(
        b"Host: b", b"Host: jobs.example", b"Host: a/b", b"Host : a", b" folded", b"\tfolded", b"X: y\n Z: 1"
    ),
    _field(
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: 0x5",
        b"Content-Length:",
        b"Content-Length: 9999999999999999999",
        b"Content-Length: 18446744073709551616",
    ),
    _field(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding:\x0bchunked",
        b"transfer-encoding: Chunked",
    ),
    _field(
        b"Upgrade: h2c\r\nConnection: Upgrade",
        b"Upgrade: websocket\r\nConnection: upgrade, close",
        b"Upgrade: h2c",
    ),
    _field(
        b"Connection: close",
        b"Connection: keep-alive",
        b"Proxy-Connection: close",
        b"Expect: x",
        b"X" * 9000 + b": y",
        b"X: " + b"y" * 9000,
        b"\r\n".join([b"X: y"] * 140),
        b"\r\n".join([b"X: " + b"y" * 8000] * 5),
    ),
    _replaced(*((b"GET", method) for method in _METHODS)),
    _replaced((b"GET /api", b"CONNECT /api"), (b"GET /api/jobs/v-1", b"CONNECT jobs.example:443")),
    _replaced(*((b"HTTP/1.1", version) for version in _VERSIONS)),
    _replaced(
        (b" /", b" http://jobs.example/"),
        (b" /", b" //"),
        (b" /", b"  /"),
        (b" /", b" *"),
        (b" /", b" /" + b"/" * 9000),
    ),
    _replaced(
        (b"\r\n", b"\n"),
        (b"\r\n\r\n", b"\n\n"),
        (b"\r\n\r\n", b"\r\n"),
        (b"\r\n\r\n", b"\r\n\n"),
        (b"\r\n", b"\r"),
    ),
    _replaced(
        (b"0\r\n\r\n", b"0\r\n"),
        (b"1\r\n", b"1;x=y\r\n"),
        (b"1\r\n", b"zz\r\n"),
        (b"5\r\n", b"5\n"),
        (b"2\r\n", b"-2\r\n"),
    ),
)
