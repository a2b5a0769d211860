"""A share as two hosts see it: one writes, the service reads, each through its own mount."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Protocol

TIMEOUT_S: Final = 20.0
_PATH: Final = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class NotPossible(Exception):
    """The share cannot be set up on this host; the message says why."""


class Share(Protocol):
    """What a test needs of a share."""

    name: str
    writer: Path
    """Where the farm writes."""
    reader: Path
    """Where the service reads."""
    keeps_ctime: bool
    """Whether every change of a file sets a new ctime."""

    def stop_server(self) -> None:
        """Kill the server."""

    def start_server(self) -> None:
        """Start it again with the same data."""


def require(*programs: str) -> None:
    """Raise NotPossible where a program, FUSE or the permission to mount is missing."""
    for program in programs:
        if shutil.which(program, path=_PATH) is None:
            raise NotPossible(f"not installed: {program}")
    if os.geteuid() != 0:
        raise NotPossible("not root")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise NotPossible("no /dev/fuse")


class Programs:
    """Programs that run in the foreground, each with a file for its output."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closing = ExitStack()

    def start(self, name: str, command: Sequence[object]) -> subprocess.Popen[bytes]:
        """Start a program; it is killed by `close`."""
        with (self._folder / f"{name}.said").open("ab") as said:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "PATH": _PATH},
            )
        self._closing.callback(stop, process)
        return process

    def mount(self, name: str, command: Sequence[object], mountpoint: Path) -> None:
        """Start a program that mounts something, and wait until it has; NotPossible where it does not."""
        mountpoint.mkdir()
        process = self.start(name, command)
        self._closing.callback(unmount, mountpoint)
        with suppress(TimeoutError):
            wait_until(lambda: mountpoint.is_mount() or process.poll() is not None)
        if not mountpoint.is_mount():
            raise NotPossible(f"{name} does not mount: {self.output_of(name)}")

    def output_of(self, name: str) -> str:
        """Return the end of a program's output or log."""
        texts = [path.read_text(errors="replace") for path in self._folder.glob(f"{name}.*")]
        return " ".join("".join(texts)[-500:].split())

    def close(self) -> None:
        """End all of them in reverse order."""
        self._closing.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and wait for its end."""
    process.kill()
    process.wait()


def unmount(mountpoint: Path) -> None:
    """Unmount, whatever still uses it."""
    subprocess.run(["umount", "-l", mountpoint], check=False, capture_output=True)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; TimeoutError where it does not."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Return whether a port of the loopback interface accepts connections."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
