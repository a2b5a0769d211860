"""Ports of the loopback interface: free ones, for programs that cannot choose one, and those in use."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Final

_PORTS: Final = range(10_000, 32_000)
"""Below the range of ports that outgoing connections get: a port stays free until its program has it."""


def free_port() -> int:
    """Return a port of the loopback interface that is free, and that no outgoing connection gets."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def accepts(port: int) -> bool:
    """Return whether a program accepts connections on a port of the loopback interface."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
