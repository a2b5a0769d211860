"""What a connection's two ends hold, as the kernel tells it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobsvc.storage.sendfile import socket_queues as module
from jobsvc.storage.sendfile.socket_queues import (
    MAX_BUFFERED_BYTES,
    MAX_BUFFERED_LOCAL_BYTES,
    SocketQueues,
    buffered,
    unread,
)
from tests.eventually import wait_until

Ends = tuple[socket.socket, socket.socket]


def joined(family: int, bound: str, address: str) -> Ends:
    """Connect to `address` of a server that listens at `bound`: our end and the client's."""
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
    ours, theirs = joined(*request.param)
    with ours, theirs:
        yield ours, theirs


def test_what_a_client_on_this_host_has_not_read_is_known(ends: Ends) -> None:
    ours, theirs = ends
    backlog = SocketQueues(ours)
    assert (backlog.is_local_peer, unread(ours), backlog.unread()) == (True, 0, 0)
    ours.sendall(bytes(10_000))
    wait_until(lambda: unread(ours) == 10_000)
    theirs.recv(4_000, socket.MSG_WAITALL)
    assert unread(ours) == 6_000
    wait_until(lambda: backlog.unacked() == 0)
    assert backlog.unread() == 6_000
    assert unread(theirs) == 0


def test_what_waits_at_our_own_end_counts_too(ends: Ends) -> None:
    """The client's buffer is full: the rest waits here."""
    ours, _ = ends
    ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
    sent = 0
    while True:
        try:
            sent += ours.send(bytes(1 << 20))
        except BlockingIOError:
            break
    backlog = SocketQueues(ours)
    wait_until(lambda: backlog.unread() == sent)
    assert backlog.unacked() > 0


def test_of_a_client_that_is_not_here_nothing_is_known_and_the_buffers_bound_it() -> None:
    """One of another kind of socket stands for one on another host: neither has an end that is found."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert unread(ours) is None
        assert (SocketQueues(ours).is_local_peer, SocketQueues(ours).max_buffered()) == (False, buffered())


def test_the_end_of_a_connection_that_is_no_more_is_nowhere(ends: Ends) -> None:
    ours, theirs = ends
    ours.sendall(b"unread")
    theirs.close()
    wait_until(lambda: unread(ours) is None)


Spoil = Callable[[bytearray], None]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[[Spoil], None]:
    """Have the kernel asked otherwise than we do."""

    def otherwise(spoil: Spoil) -> None:
        usual = module._question

        def spoiled(connection: socket.socket) -> bytes:
            asked = bytearray(usual(connection))
            spoil(asked)
            return bytes(asked)

        monkeypatch.setattr(module, "_question", spoiled)

    return otherwise


def test_a_connection_whose_other_end_is_not_found_has_none_here(
    ends: Ends, ask: Callable[[Spoil], None]
) -> None:
    """The kernel itself is asked for ports that nobody has, as it is for the client of another host."""
    ports = slice(module._HEADER.size + 8, module._HEADER.size + 12)
    ask(lambda asked: asked.__setitem__(ports, bytes(4)))
    assert unread(ends[0]) is None
    assert not SocketQueues(ends[0]).is_local_peer


def test_a_kernel_that_will_not_say_is_believed_to_know_nothing(
    ends: Ends, ask: Callable[[Spoil], None]
) -> None:
    """Asked with half a question, which it refuses."""
    ask(lambda asked: asked.__setitem__(slice(4), (24).to_bytes(4, sys.byteorder)))
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        unread(ends[0])
    backlog = SocketQueues(ends[0])
    assert (backlog.is_local_peer, backlog.max_buffered()) == (False, buffered())


def test_less_is_copied_for_a_client_that_can_be_asked(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SocketQueues(ends[0]).max_buffered() == min(MAX_BUFFERED_LOCAL_BYTES, buffered())
    monkeypatch.setattr(module, "buffered", lambda: 5)
    assert SocketQueues(ends[0]).max_buffered() == 5


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("1 2 30\n", 60),
        ("1\n", MAX_BUFFERED_BYTES),
        ("a b c", MAX_BUFFERED_BYTES),
        (None, MAX_BUFFERED_BYTES),
    ],
)
def test_the_size_of_the_buffers_is_the_systems_or_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, bound: int
) -> None:
    if text is not None:
        (tmp_path / "mem").write_text(text)
    monkeypatch.setattr(module, "BUFFERS", (tmp_path / "mem",) * 2)
    assert buffered.__wrapped__() == bound
