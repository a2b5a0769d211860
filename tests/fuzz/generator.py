"""Generates streams of requests, valid and mutated, in pieces; deterministic for a seed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from tests.fuzz.mutations import MUTATIONS

JOBS: Final = {"anna": ("a-1", "a-2", "a-3"), "vic": ("v-1", "v-2")}
WRONG_TOKEN: Final = "jsvc_" + "w" * 43
MUTATED: Final = 0.12
"""The share of requests that are mutated."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The bytes that one connection sends."""

    requests: tuple[bytes, ...]
    cuts: tuple[int, ...]
    """Where the bytes of all requests are cut into pieces."""

    @property
    def data(self) -> bytes:
        return b"".join(self.requests)

    def pieces(self) -> list[bytes]:
        data = self.data
        edges = [0, *(cut for cut in self.cuts if 0 < cut < len(data)), len(data)]
        return [data[start:end] for start, end in pairwise(edges) if start < end]


class Generator:
    """Generates streams; `tokens` are by owner."""

    def __init__(self, random: Random, tokens: dict[str, str]) -> None:
        self._random = random
        self._tokens = tokens
        self._number = 0

    def stream(self) -> Stream:
        """Generate the next stream."""
        random = self._random
        usual, noise = self._question(), self._noise()
        requests = []
        for _ in range(random.choice((1, 2, 3, 4, 6, 8, 12, 20))):
            if random.random() < 0.3:
                usual, noise = self._question(), self._noise()
            elif random.random() < 0.8:
                usual = self._retargeted(usual)
            request = self._request(usual, noise)
            requests.append(self._mutated(request) if random.random() < MUTATED else request)
        return Stream(tuple(requests), self._cuts(requests))

    def _question(self) -> tuple[str, str, str | None, tuple[str, ...]]:
        random = self._random
        owner = random.choice(("anna", "vic"))
        job = random.choice(JOBS[owner])
        token: str | None = self._tokens[owner]
        if random.random() < 0.1:
            token = random.choice((None, WRONG_TOKEN, self._tokens["anna"]))
        method, target = "GET", f"/api/jobs/{job}"
        fields: tuple[str, ...] = ()
        choice = random.random()
        if choice > 0.55:
            method = random.choice(("GET", "GET", "HEAD"))
            suffix = random.choice(
                ("/download", "/download", "/logs", "?", "/x", "/logs?tail=1", "/download?x=1")
            )
            target += suffix
            if random.random() < 0.5:
                fields = random.choice(
                    (
                        ("Range: bytes=5-14",),
                        ("Range: bytes=0-0,3-4",),
                        ("Range: bytes=999999-",),
                        ("Range: bytes=0-",),
                        ("Range: bytes=6-6",),
                        ("range: bytes=7-3",),
                        ("If-None-Match: *",),
                        ('If-Match: "x"',),
                    )
                )
        if choice > 0.8:
            target = random.choice(
                (
                    "/healthz",
                    "/nowhere",
                    "/api/jobs?limit=2",
                    "/api/jobs",
                    "/api/openapi.json",
                    "/api/jobs/no-such",
                )
            )
        if choice > 0.93:
            method = random.choice(("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"))
        return method, target, token, fields

    def _retargeted(
        self, usual: tuple[str, str, str | None, tuple[str, ...]]
    ) -> tuple[str, str, str | None, tuple[str, ...]]:
        method, target, token, fields = usual
        owner = "vic" if token == self._tokens["vic"] else "anna"
        job = self._random.choice(JOBS[owner])
        return (
            method,
            self._random.choice((f"/api/jobs/{job}", f"/api/jobs/{job}/download", target)),
            token,
            fields,
        )

    def _noise(self) -> tuple[str, ...]:
        random = self._random
        all_of_it = (
            "User-Agent: fuzz/1",
            "Accept: */*",
            "Accept-Encoding: gzip",
            "Cookie: a=b; c=d",
            "X-A: " + "a" * 300,
            "X-B: GET /api/jobs/v-1 HTTP/1.1",
            "Connection: keep-alive",
            "X-Forwarded-For: 10.0.0.1",
            "TE: trailers",
            "X-C:",
            "X-D:\tx",
            "Pragma: no-cache",
            "Accept-Language: en",
            "X-E: \xe4",
            "Priority: u=1",
        )
        return tuple(random.sample(all_of_it, random.choice((0, 0, 1, 2, 4))))

    def _request(
        self, question: tuple[str, str, str | None, tuple[str, ...]], noise: tuple[str, ...]
    ) -> bytes:
        random = self._random
        method, target, token, fields = question
        self._number += 1
        version, extra, body = "1.1", [f"X-Request-Id: m-{self._number:09}"], b""
        if random.random() < 0.12:
            body = random.choice(
                (b"x", b"{}", b"hello", b"\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"b" * 3000)
            )
            if random.random() < 0.5:
                extra.append(f"Content-Length: {len(body)}")
            else:
                extra.append("Transfer-Encoding: chunked")
                body = self._chunked(body)
        elif random.random() < 0.05:
            extra.append("Content-Length: 0")
        if random.random() < 0.05:
            protocol = random.choice(("h2c", "websocket", "TLS/1.0", "WebSocket"))
            extra += [f"Upgrade: {protocol}", "Connection: Upgrade, HTTP2-Settings"]
            noise = tuple(each for each in noise if not each.startswith("Connection"))
        elif random.random() < 0.04:
            version = "1.0"
        elif random.random() < 0.02:
            extra.append("Connection: close")
            noise = tuple(each for each in noise if not each.startswith("Connection"))
        if random.random() < 0.02:
            extra.append("Expect: 100-continue")
        lines = [f"{method} {target} HTTP/{version}", "Host: jobs.example"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        lines += [*fields, *noise, *extra]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _chunked(self, body: bytes) -> bytes:
        parts, position = [], 0
        while position < len(body):
            size = self._random.choice((1, 2, 5, 100, 4000))
            part = body[position : position + size]
            parts.append(b"%x\r\n%b\r\n" % (len(part), part))
            position += size
        return b"".join(parts) + self._random.choice((b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nX-T: y\r\n\r\n"))

    def _mutated(self, request: bytes) -> bytes:
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            request = self._random.choice(MUTATIONS)(self._random, request)
        return request

    def _cuts(self, requests: list[bytes]) -> tuple[int, ...]:
        random = self._random
        size, ends, total = sum(map(len, requests)), [], 0
        for request in requests:
            total += len(request)
            ends.append(total)
        how = random.random()
        if how < 0.25:
            return ()
        if how < 0.5:
            return tuple(ends)
        cuts = {random.randrange(size + 1) for _ in range(random.choice((1, 2, 5, 20)))}
        cuts |= {end - random.randrange(6) for end in ends if random.random() < 0.5}
        if how > 0.97:
            start = random.randrange(size)
            cuts |= set(range(start, min(size, start + 40)))
        return tuple(sorted(cuts))
