"""Notify the service manager of the state of this process (sd_notify(3))."""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"


class ServiceManager:
    """Sends notifications; does nothing if no service manager wants them. Never raises, never waits."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Remove the variable, so that child processes do not inherit it."""
        name = environment.pop(VARIABLE, "")
        self._address = "\0" + name[1:] if name.startswith("@") else name

    def ready(self) -> None:
        """Report that the service accepts connections, or that it has reloaded its configuration."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready` has to follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)  # noqa: FBT003 - the socket module's own API
                manager.sendto(state.encode(), self._address)
