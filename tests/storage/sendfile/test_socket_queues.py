"""Bytes in the queues of both ends of a connection, as the kernel reports them."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from jobsvc.storage.sendfile import socket_queues as module
from jobsvc.storage.sendfile.socket_queues import (
    MAX_BUFFERED_LOCAL_BYTES,
    SocketQueues,
    max_buffered_bytes,
    unread,
)
from tests.eventually import wait_until

DEFAULT_BYTES: Final = module.MAX_SEND_BUFFER_BYTES + module.MAX_RECEIVE_BUFFER_BYTES

Ends = tuple[socket.socket, socket.socket]


def connect(family: int, bound: str, address: str) -> Ends:
    """Connect to `address` of a server that listens at `bound`; return both ends."""
    with socket.create_server((bound, 0), family=family, dualstack_ipv6=bound == "::") as listening:
        theirs = socket.create_connection((address, listening.getsockname()[1]))
        ours, _ = listening.accept()
    return ours, theirs


@pytest.fixture(
    params=[
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "IPv4 to a server of both"],
)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    ours, theirs = connect(*request.param)
    with ours, theirs:
        yield ours, theirs


def test_unread_bytes_of_a_local_client_are_known(ends: Ends) -> None:
    ours, theirs = ends
    queues = SocketQueues(ours)
    assert (queues.is_local_peer, unread(ours), queues.unread()) == (True, 0, 0)
    ours.sendall(bytes(10_000))
    wait_until(lambda: unread(ours) == 10_000)
    theirs.recv(4_000, socket.MSG_WAITALL)
    assert unread(ours) == 6_000
    wait_until(lambda: queues.unacked() == 0)
    assert queues.unread() == 6_000
    assert unread(theirs) == 0


def test_bytes_in_the_own_send_queue_count_too(ends: Ends) -> None:
    """The client's buffer is full: the rest is in the send queue."""
    ours, _ = ends
    ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
    sent = 0
    while True:
        try:
            sent += ours.send(bytes(1 << 20))
        except BlockingIOError:
            break
    queues = SocketQueues(ours)
    wait_until(lambda: queues.unread() == sent)
    assert queues.unacked() > 0


def test_remote_client_is_unknown_and_bounded_by_the_buffers() -> None:
    """Another kind of socket stands for one on another host: the peer is not found for either."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert unread(ours) is None
        assert (SocketQueues(ours).is_local_peer, SocketQueues(ours).max_buffered()) == (
            False,
            max_buffered_bytes(),
        )


def test_peer_of_a_closed_connection_is_not_found(ends: Ends) -> None:
    ours, theirs = ends
    ours.sendall(b"unread")
    theirs.close()
    wait_until(lambda: unread(ours) is None)


Change = Callable[[bytearray], None]


@pytest.fixture
def change_request(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Replace the request that is sent to the kernel."""

    def replace(change: Change) -> None:
        build = module._question

        def changed(connection: socket.socket) -> bytes:
            message = bytearray(build(connection))
            change(message)
            return bytes(message)

        monkeypatch.setattr(module, "_question", changed)

    return replace


def test_connection_whose_peer_is_not_found_is_remote(
    ends: Ends, change_request: Callable[[Change], None]
) -> None:
    """The request names ports that nobody uses, as it does for a client of another host."""
    ports = slice(module._HEADER.size + 8, module._HEADER.size + 12)
    change_request(lambda message: message.__setitem__(ports, bytes(4)))
    assert unread(ends[0]) is None
    assert not SocketQueues(ends[0]).is_local_peer


def test_kernel_error_counts_as_unknown(ends: Ends, change_request: Callable[[Change], None]) -> None:
    """The request is truncated, which the kernel refuses."""
    change_request(lambda message: message.__setitem__(slice(4), (24).to_bytes(4, sys.byteorder)))
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        unread(ends[0])
    queues = SocketQueues(ends[0])
    assert (queues.is_local_peer, queues.max_buffered()) == (False, max_buffered_bytes())


def test_less_is_copied_for_a_local_client(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SocketQueues(ends[0]).max_buffered() == min(MAX_BUFFERED_LOCAL_BYTES, max_buffered_bytes())
    monkeypatch.setattr(module, "max_buffered_bytes", lambda: 5)
    assert SocketQueues(ends[0]).max_buffered() == 5


@pytest.mark.parametrize(
    ("tcp", "rmem_max", "bound"),
    [
        ("1 2 30\n", "10\n", 60),
        ("1 2 30\n", "40\n", 110),
        ("1 2 30\n", None, 60),
        ("\n", None, DEFAULT_BYTES),
        ("a b c", "d", DEFAULT_BYTES),
        (None, None, DEFAULT_BYTES),
    ],
)
def test_size_of_the_buffers_is_the_systems_or_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcp: str | None, rmem_max: str | None, bound: int
) -> None:
    """A client may set its receive buffer to twice rmem_max; not every network namespace shows that."""
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "core").mkdir()
    for name, text in {"ipv4/tcp_wmem": tcp, "ipv4/tcp_rmem": tcp, "core/rmem_max": rmem_max}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "SETTINGS", tmp_path)
    assert max_buffered_bytes.__wrapped__() == bound
