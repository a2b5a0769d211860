"""What waits for a client: the bytes that were sent to it, and that it has not read yet.

Some wait in our system and some in the client's. Where both are this host, the kernel knows of the second
too, and is asked (sock_diag(7)); of a client elsewhere, or in another network namespace, it knows nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import termios
from functools import cache, cached_property
from pathlib import Path
from struct import Struct, unpack
from typing import Final

BUFFERS: Final = tuple(Path(f"/proc/sys/net/ipv4/{name}") for name in ("tcp_wmem", "tcp_rmem"))
"""Least, usual and largest size of what holds bytes at the two ends of a connection (tcp(7))."""
MAX_BUFFERED_BYTES: Final = 10 * 1024 * 1024
"""Their largest sizes together, where the system does not tell: its own defaults."""
MAX_BUFFERED_LOCAL_BYTES: Final = 4 * 1024 * 1024
"""What may wait for a client on this host, who is waited for until it does not."""

_SOCK_DIAG: Final = 4
"""NETLINK_SOCK_DIAG."""
_BY_FAMILY: Final = 20
"""SOCK_DIAG_BY_FAMILY: the type of the question and of its answer."""
_REQUEST: Final = 1
_ANY: Final = 0xFFFFFFFF
"""Every state; and no cookie."""

_HEADER: Final = Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, number, port."""
_QUESTION: Final = Struct("=BBBBI2s2s16s16sIII")
"""struct inet_diag_req_v2 (linux/inet_diag.h)."""
_ERROR: Final = Struct("=i")
_UNREAD: Final = Struct("=4x48x4xI")
"""struct inet_diag_msg as far as idiag_rqueue: of a connection, the bytes that nobody has read."""


class SocketQueues:
    """What waits for the client of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @cached_property
    def is_local_peer(self) -> bool:
        """Whether the client is on this host, where it can be asked what he has not read yet."""
        try:
            return unread(self._connection) is not None
        except OSError:
            return False

    def max_buffered(self) -> int:
        """Give the most bytes that may wait: what the buffers hold, or less where we can wait for less."""
        return min(MAX_BUFFERED_LOCAL_BYTES, buffered()) if self.is_local_peer else buffered()

    def unacked(self) -> int:
        """Count the bytes that the client's system has not acknowledged yet (tcp(7), SIOCOUTQ)."""
        (count,) = unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, bytes(4)))
        return int(count)

    def unread(self) -> int:
        """Count what a client on this host has not read, none once he is gone; OSError as `unread` has it."""
        # In this order: a byte that moves on meanwhile counts twice rather than not at all.
        queued, there = self.unacked(), unread(self._connection)
        return 0 if there is None else queued + there


@cache
def buffered() -> int:
    """Give the most bytes that may wait for a client: here, and with him where he is on this machine too."""
    try:
        return sum(int(path.read_text("ascii").split()[2]) for path in BUFFERS)
    except (OSError, ValueError, IndexError):
        return MAX_BUFFERED_BYTES


def unread(connection: socket.socket) -> int | None:
    """Count what lies unread at the other end of a connection; None where no such end is on this host.

    OSError where the kernel won't say.
    """
    if connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    try:
        question = _question(connection)
    except OSError:
        return None
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.setblocking(False)  # noqa: FBT003 - the socket module's own way; the answer is there at once
        kernel.sendto(question, (0, 0))
        answer = kernel.recv(1024)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _BY_FAMILY:
        (count,) = _UNREAD.unpack_from(answer, _HEADER.size)
        return int(count)
    (number,) = _ERROR.unpack_from(answer, _HEADER.size)
    if -number == errno.ENOENT:
        return None
    raise OSError(-number, os.strerror(-number))


def _question(connection: socket.socket) -> bytes:
    """Ask for the one socket that has this connection's addresses the other way round."""
    family, there, here = connection.family, connection.getpeername(), connection.getsockname()
    ports = [address[1].to_bytes(2, "big") for address in (there, here)]
    hosts = [socket.inet_pton(family, address[0].partition("%")[0]) for address in (there, here)]
    asked = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, _ANY, *ports, *hosts, 0, _ANY, _ANY)
    return _HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked
