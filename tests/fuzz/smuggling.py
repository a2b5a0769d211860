"""Requests whose body is another request, or the start of one for the next client."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.fuzz.generator import Stream

METHODS: Final = ("CONNECT", "CONNECT", "GET", "POST", "HEAD", "OPTIONS", "TRACE")
TARGETS: Final = (
    "/healthz",
    "jobs.example:443",
    "/api/jobs/a-1",
    "http://jobs.example/healthz",
    "*",
    "/api/jobs/a-9?wait=1",
)
OFFERS: Final = (
    "",
    "",
    "Upgrade: h2c\r\nConnection: Upgrade\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
)
FRAMINGS: Final = (
    "Content-Length: {length}\r\n",
    "Content-Length: {length}\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    "Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n",
    "Transfer-Encoding: identity\r\nContent-Length: {length}\r\n",
    "Content-Length: {length}\r\nContent-Length: 0\r\n",
    "Transfer-Encoding:\x0bchunked\r\nContent-Length: {length}\r\n",
    "",
)


def smuggling(random: Random, token: str) -> Stream:
    """Generate one such stream."""
    hidden = random.choice(
        (
            f"GET /api/jobs/a-9?wait=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /api/jobs/v-1/download-links HTTP/1.1\r\nX: ",
            "GET /healthz HTTP/1.1\r\nX: ",
            "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n",
        )
    ).encode()
    version = random.choice(("1.1", "1.1", "1.1", "1.0"))
    framing = random.choice(FRAMINGS).format(length=len(hidden))
    line = f"{random.choice(METHODS)} {random.choice(TARGETS)} HTTP/{version}\r\nHost: jobs.example\r\n"
    head = (line + random.choice(OFFERS) + framing + "\r\n").encode("latin-1")
    if "chunked" in framing and random.random() < 0.7:
        hidden = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    cuts = random.choice(((), (len(head),), (len(head) - 1, len(head) + 5)))
    return Stream((head + hidden,), cuts)
