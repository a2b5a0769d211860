"""Several `jobsvc serve` processes on one jobs root, with one Redis, behind one proxy."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state import link_key, token_file
from tests.clients.raw_http import IncompleteAnswer
from tests.programs.redis_server import RedisServer
from tests.programs.service_runner import Service, start_command, stop_process
from tests.replicas.balancers import balancer

START_TIMEOUT_S: Final = 60.0
"""On a host whose cores are all busy."""
_PORTS: Final = range(10_000, 32_000)
"""Below the range of ports that outgoing connections get: a port stays free while its process is away."""


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

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

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


@dataclass
class ReplicaGroup:
    """Replicas, their Redis and the proxy in front of them."""

    folder: Path
    port: int
    """Of the proxy."""
    replicas: list[Replica]
    redis: RedisServer | None
    tokens: list[str] = field(default_factory=list)

    def service(self, token: str | None = None) -> Service:
        """Return the service as a client sees it through the proxy."""
        return Service(self.port, self.folder, self.tokens[0] if token is None else token)

    async def metric(self, name: str) -> float:
        """Sum a metric of all replicas."""
        return sum([await replica.service.metric(name) for replica in self.replicas])


def free_port() -> int:
    """Return a port that is free, and that no outgoing connection gets."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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
        replicas = [_replica(folder, jobs_root, number, options) for number in range(count)]
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        group = ReplicaGroup(folder, free_port(), replicas, redis, tokens)
        for replica in replicas:
            await replica.wait_until_ready()
        async with balancer(proxy, folder, group.port, [replica.port for replica in replicas]):
            yield group


def _replica(folder: Path, jobs_root: Path, number: int, options: Sequence[object]) -> Replica:
    own = folder / f"replica-{number}"
    (own / "state").mkdir(parents=True, mode=0o700)
    for name in ("tokens.json", "link.key"):
        shutil.copy2(folder / "secrets" / name, own / "state" / name)
    port = free_port()
    words = (jobs_root, "--port", port, "--state-dir", own / "state", "--instance", f"replica-{number}")
    return Replica(f"replica-{number}", port, own, (*words, "--trusted-proxy", "127.0.0.1", *options))


def _create_secrets(folder: Path, owners: Sequence[str]) -> list[str]:
    folder.mkdir(mode=0o700)
    link_key.load_or_create(folder / "link.key")
    return [
        token_file.create(folder / "tokens.json", owner, (JOBS_READ, OUTPUTS_READ))[0] for owner in owners
    ]
