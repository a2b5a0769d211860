"""Several `jobsvc serve` processes on one jobs root, with one Redis, behind one proxy."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import orjson

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state import link_key, token_file
from tests.clients.raw_http import Connection, IncompleteAnswer
from tests.deploy.reverse_proxies import ReverseProxy, running
from tests.programs.ports import free_port
from tests.programs.redis_server import RedisServer
from tests.programs.service_runner import Service, start_command, stop_process

START_TIMEOUT_S: Final = 60.0
"""On a host whose cores are all busy."""


@dataclass
class Replica:
    """One `jobsvc serve` on a port of its own, which it keeps when it is started again."""

    name: str
    port: int
    folder: Path
    words: tuple[object, ...]
    """Of the command line."""
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def service(self) -> Service:
        return Service(self.port, self.folder / "state", None)

    def start(self) -> None:
        """Start it without waiting."""
        self.starts += 1
        self._process = start_command(self.folder / f"log-{self.starts}", "serve", *self.words)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator does, if it was started; kill it if it does not end in time."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                stop_process(self._process)

    async def wait_until_ready(self) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await self.is_ready():
                assert self._process is not None
                assert self._process.poll() is None, self.log_text()
                await asyncio.sleep(0.05)

    async def is_ready(self) -> bool:
        with suppress(OSError, IncompleteAnswer):
            return (await self.service.get("/readyz")).status == 200
        return False

    def log_text(self) -> str:
        """Return the log since the last start."""
        return (self.folder / f"log-{self.starts}").read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log lines of all starts; the last line of a killed process can be incomplete."""
        lines: list[dict[str, Any]] = []
        for number in range(1, self.starts + 1):
            for line in (self.folder / f"log-{number}").read_bytes().splitlines():
                with suppress(orjson.JSONDecodeError):
                    lines.append(orjson.loads(line))
        return lines


@dataclass(frozen=True, slots=True)
class ProxiedService(Service):
    """The service behind a proxy with TLS."""

    tls: ssl.SSLContext

    @asynccontextmanager
    async def connect(self, *, receive_buffer: int | None = None) -> AsyncIterator[Connection]:
        """Open a connection during a block; at its end it is closed without waiting for the proxy."""
        opened = await Connection.open(self.port, receive_buffer=receive_buffer, tls=self.tls)
        try:
            yield opened
        finally:
            opened.writer.transport.abort()


@dataclass
class ReplicaGroup:
    """Replicas, their Redis and the proxy in front of them."""

    folder: Path
    proxy: ReverseProxy
    replicas: list[Replica]
    redis: RedisServer | None
    tokens: list[str]

    def services(self, count: int) -> list[ProxiedService]:
        """Return the service as clients see it through the proxy, with all tokens in turn."""
        tokens = islice(cycle(self.tokens), count)
        return [ProxiedService(self.proxy.port, self.folder, token, self.proxy.tls) for token in tokens]

    async def metric(self, name: str) -> float:
        """Sum a metric of all replicas."""
        return sum([await replica.service.metric(name) for replica in self.replicas])


@asynccontextmanager
async def replica_group(
    folder: Path,
    jobs_root: Path,
    *,
    proxy: str,
    count: int,
    owners: Sequence[str],
    options: Sequence[object] = (),
    shared: bool = True,
) -> AsyncIterator[ReplicaGroup]:
    """Run `count` replicas behind a proxy during a block, with a token for each of `owners`.

    `options` are further ones of `jobsvc serve`. `shared`: whether they share a Redis.
    """
    with ExitStack() as stack:
        redis = None
        if shared:
            redis = RedisServer(folder, free_port())
            redis.start()
            stack.callback(redis.kill)
            options = (*options, "--shared-state", redis.url)
        tokens = await asyncio.to_thread(_create_secrets, folder / "secrets", owners)
        options = (*options, "--secrets-dir", folder / "secrets", "--trusted-proxy", "127.0.0.1")
        replicas = [_replica(folder, jobs_root, f"replica-{number}", options) for number in range(count)]
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        for replica in replicas:
            await replica.wait_until_ready()
        (folder / "proxy").mkdir()
        running_proxy = running(proxy, [replica.port for replica in replicas], folder / "proxy")
        yield ReplicaGroup(folder, stack.enter_context(running_proxy), replicas, redis, tokens)


def _replica(folder: Path, jobs_root: Path, name: str, options: Sequence[object]) -> Replica:
    own, port = folder / name, free_port()
    (own / "state").mkdir(parents=True, mode=0o700)
    words = (jobs_root, "--port", port, "--state-dir", own / "state", "--instance", name, *options)
    return Replica(name, port, own, words)


def _create_secrets(folder: Path, owners: Sequence[str]) -> list[str]:
    folder.mkdir(mode=0o700)
    link_key.load_or_create(folder / "link.key")
    return [
        token_file.create(folder / "tokens.json", owner, (JOBS_READ, OUTPUTS_READ))[0] for owner in owners
    ]
