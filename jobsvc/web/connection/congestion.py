"""A client on this host, as a proxy before the service is: no network lies between that could be too slow."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

UNPACED_ALGORITHM: Final = b"reno"
"""Congestion control that is in every kernel, open to everyone, and sends as soon as there is room."""


def disable_pacing(transport: asyncio.BaseTransport) -> None:
    """Pace nothing for a client on this host.

    Where the system's congestion control (tcp(7), TCP_CONGESTION) is one that spaces packets out, as BBR does
    by timers, this is a third faster and takes a fifth less of the processor. Any other client is sent to as
    the system has it.
    """
    if is_same_host(transport):
        connection: socket.socket = transport.get_extra_info("socket")
        with suppress(OSError):  # then it is paced
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, UNPACED_ALGORITHM)


def is_same_host(transport: asyncio.BaseTransport) -> bool:
    """Whether a client speaks from the address that it speaks to: it is on this host, or in its container."""
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return isinstance(peer, tuple) and isinstance(own, tuple) and peer[0] == own[0]
