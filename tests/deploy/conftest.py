"""Two replicas of the service behind each reverse proxy of deploy/."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from jobsvc.settings import Settings
from tests.conftest import MakeToken
from tests.deploy.reverse_proxies import PROGRAMS, ReverseProxy, running
from tests.programs.external_programs import needs
from tests.programs.ports import free_port
from tests.programs.service_runner import Service, service_in_loop


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    headers: Any
    body: bytes


@dataclass(slots=True)
class Replica:
    """A service that can be stopped and started again."""

    settings: Settings
    token: str
    service: Service = field(init=False)
    _exit: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self.service = await self._exit.enter_async_context(service_in_loop(self.settings, self.token))

    async def stop(self) -> None:
        """Stop it and close its port, if it runs."""
        await self._exit.aclose()


@dataclass(frozen=True, slots=True)
class Behind:
    """Replicas of the service and the proxy in front of them."""

    replicas: list[Replica]
    proxy: ReverseProxy

    @property
    def service(self) -> Service:
        """One of the replicas."""
        return self.replicas[0].service

    async def metric(self, name: str) -> float:
        """Return the sum of a metric of all replicas."""
        return sum([await replica.service.metric(name) for replica in self.replicas])

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
"""Starts replicas with these settings and a proxy in front of them.

`count=1` leaves one address of the proxy unused. With `own_roots` each replica has a copy of the jobs. With
`sticky` the proxy sends each client to one replica.
"""


@pytest.fixture(
    params=[pytest.param(name, marks=needs(program, "openssl")) for name, program in PROGRAMS.items()]
)
async def front(
    request: pytest.FixtureRequest, jobs_root: Path, state_dir: Path, tmp_path: Path, make_token: MakeToken
) -> AsyncIterator[Front]:
    folder = tmp_path / "proxy"
    folder.mkdir()
    token = make_token()
    async with AsyncExitStack() as running_now:

        async def start(
            count: int = 2, *, own_roots: bool = False, sticky: bool = False, **settings: Any
        ) -> Behind:
            replicas: list[Replica] = []
            for number in range(count):
                root = shutil.copytree(jobs_root, tmp_path / f"jobs-{number}") if own_roots else jobs_root
                own_state = shutil.copytree(state_dir, tmp_path / f"state-{number}")
                replica = Replica(_settings(root, own_state, **settings), token)
                running_now.push_async_callback(replica.stop)
                await replica.start()
                # If it is started again, then on the same port.
                replica.settings = replace(replica.settings, port=replica.service.port)
                replicas.append(replica)
                shutil.copy(own_state / "link.key", state_dir)  # the next one gets it
            ports = [replica.service.port for replica in replicas] + [free_port()] * (2 - count)
            started = running(request.param, ports, folder, sticky=sticky)
            proxy = await asyncio.to_thread(started.__enter__)
            running_now.push_async_callback(asyncio.to_thread, started.__exit__, None, None, None)
            return Behind(replicas, proxy)

        yield start


def _settings(jobs_root: Path, state_dir: Path, **settings: Any) -> Settings:
    """Return settings of a replica that polls, trusts the proxy and has no limits that a test reaches."""
    budgets = ("limit_status", "limit_list", "limit_events", "limit_logs", "limit_download")
    chosen: dict[str, Any] = dict.fromkeys(budgets, "1000000/minute")
    chosen |= {"port": 0, "watch": "poll", "poll_interval": 0.05, "shutdown_grace": 0.5}
    chosen |= {"trusted_proxies": (ip_network("127.0.0.1"),)}
    return Settings(jobs_root, state_dir=state_dir, **{**chosen, **settings})
