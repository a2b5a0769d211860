"""The service behind each reverse proxy of docs/deployment.md."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.conftest import Serve
from tests.documented_proxies.reverse_proxies import PROGRAMS, ReverseProxy, running
from tests.programs.external_programs import needs
from tests.programs.service_runner import Service


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    headers: Any
    body: bytes


@dataclass(frozen=True, slots=True)
class Behind:
    """A service and the proxy in front of it."""

    service: Service
    proxy: ReverseProxy

    def url(self, target: str) -> URL:
        return URL(f"https://localhost:{self.proxy.port}{target}", encoded=True)

    def session(self, address: str = "127.0.0.1") -> aiohttp.ClientSession:
        """Create a client with this loopback address as its own; it does not modify URLs."""
        connector = aiohttp.TCPConnector(ssl=self.proxy.tls, local_addr=(address, 0), family=socket.AF_INET)
        return aiohttp.ClientSession(connector=connector, auto_decompress=False, requote_redirect_url=False)

    async def ask(
        self,
        method: str,
        target: str,
        *,
        token: str | None = "",
        address: str = "127.0.0.1",
        body: bytes | None = None,
        **fields: str,
    ) -> Response:
        """Send one request; underscores in the names of `fields` are hyphens."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.service.token}"
        async with (
            self.session(address) as session,
            session.request(method, self.url(target), headers=headers, data=body) as response,
        ):
            return Response(response.status, response.headers, await response.read())

    async def get(self, target: str, **given: Any) -> Response:
        return await self.ask("GET", target, **given)


Front = Callable[..., Awaitable[Behind]]
"""Starts a service with these settings, and a proxy in front of it."""


@pytest.fixture(
    params=[pytest.param(name, marks=needs(program, "openssl")) for name, program in PROGRAMS.items()]
)
async def front(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> AsyncIterator[Front]:
    folder = tmp_path / "proxy"
    folder.mkdir()
    async with AsyncExitStack() as proxies:

        async def start(**settings: Any) -> Behind:
            settings = {"trusted_proxies": (ip_network("127.0.0.1"),), "poll_interval": 0.05, **settings}
            service = await serve(**settings)
            started = running(request.param, service.port, folder)
            proxy = await asyncio.to_thread(started.__enter__)
            proxies.push_async_callback(asyncio.to_thread, started.__exit__, None, None, None)
            return Behind(service, proxy)

        yield start
