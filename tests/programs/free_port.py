"""Ports for programs that cannot choose one themselves."""

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
