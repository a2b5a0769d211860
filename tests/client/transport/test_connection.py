from __future__ import annotations

import socket

from jobsvc.client.transport.connection import Connection


def test_closed_connection_can_be_interrupted_and_closed_again() -> None:
    sock, peer = socket.socketpair()
    with peer:
        connection = Connection(sock)
        connection.close()
        connection.interrupt()
        connection.close()
    assert sock.fileno() == -1


def test_idle_connection_with_unread_bytes_cannot_be_used() -> None:
    sock, peer = socket.socketpair()
    connection = Connection(sock)
    with sock, peer:
        assert connection.is_idle
        peer.send(b"x")
        assert not connection.is_idle
