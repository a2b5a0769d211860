"""Pacing is disabled for clients on this host only; other connections keep the system's
congestion control.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from jobsvc.web.connection import congestion
from jobsvc.web.connection import connection as connection_module
from jobsvc.web.connection.congestion import UNPACED_ALGORITHM, disable_pacing, is_same_host
from tests.conftest import MakeJob, Serve
from tests.eventually import until

pytestmark = pytest.mark.both_loops

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_bytes().split()
OTHERS = [name for name in ALLOWED if name != UNPACED_ALGORITHM]


def control(end: socket.socket) -> bytes:
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


class AcceptedSocket(asyncio.Protocol):
    """The server's end of a connection; `before` sets its congestion control."""

    def __init__(self, made: list[asyncio.BaseTransport], before: bytes | None = None) -> None:
        self._made = made
        self._before = before

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._before is not None:
            end = transport.get_extra_info("socket")
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self._before)
        disable_pacing(transport)
        self._made.append(transport)


async def end(server: asyncio.Server, *transports: asyncio.BaseTransport) -> None:
    for transport in transports:
        transport.close()
    server.close()
    await server.wait_closed()


@pytest.mark.skipif(not OTHERS, reason="this system has one congestion control only")
@pytest.mark.parametrize(
    ("peer", "host", "near"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),  # as a client elsewhere would: from another address
        ("::1", "::1", True),
    ],
)
async def test_pacing_is_disabled_only_for_clients_on_this_host(peer: str, host: str, *, near: bool) -> None:
    made: list[asyncio.BaseTransport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: AcceptedSocket(made, OTHERS[0]), host, 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_connection(asyncio.Protocol, host, port, local_addr=(peer, 0))
    await until(lambda: bool(made))
    assert is_same_host(made[0]) is near
    assert control(made[0].get_extra_info("socket")) == (UNPACED_ALGORITHM if near else OTHERS[0])
    await end(server, transport, *made)


async def test_unix_socket_connection_is_left_unchanged(tmp_path: Path) -> None:
    made: list[asyncio.BaseTransport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: AcceptedSocket(made), str(tmp_path / "socket"))
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, str(tmp_path / "socket"))
    await until(lambda: bool(made))
    assert not is_same_host(made[0])
    await end(server, transport, *made)


async def test_every_accepted_connection_is_checked(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[asyncio.BaseTransport] = []
    monkeypatch.setattr(connection_module, "disable_pacing", seen.append)
    make_job(output=b"film")
    assert (await (await serve()).download("job-1")).body == b"film"
    assert len(seen) == 1


async def test_permission_error_of_the_system_is_ignored(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(congestion, "UNPACED_ALGORITHM", b"none-such")
    make_job(output=b"film")
    assert (await (await serve()).download("job-1")).body == b"film"
