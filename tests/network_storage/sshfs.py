"""sshfs on the loopback interface: a server of the test's own, and two mounts as on two hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.network_storage.share import (
    NotPossible,
    Programs,
    listens,
    require,
    stop,
    wait_until,
)
from tests.programs.ports import free_port

_SERVER: Final = """
Port {port}
ListenAddress 127.0.0.1
HostKey {scratch}/host
AuthorizedKeysFile {scratch}/id.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""
CACHE_OPTIONS: Final = {"dir_cache": "no", "entry_timeout": 0, "attr_timeout": 0}
"""By default sshfs caches names and attributes for 20 s, and the kernel for another second."""


class Sshfs:
    """A share on sshfs."""

    name = "sshfs"
    keeps_ctime = False
    """SFTP has no ctime, and an mtime in seconds."""

    def __init__(self, scratch: Path, programs: Programs) -> None:
        self.writer = scratch / "writer"
        self.reader = scratch / "reader"
        self._scratch = scratch
        self._programs = programs
        self._port = free_port()
        for name in ("host", "id"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(scratch / name)]
            subprocess.run(key, check=True, capture_output=True)
        (scratch / "data").mkdir()
        (scratch / "server.conf").write_text(_SERVER.format(port=self._port, scratch=scratch))
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's privilege separation directory
        self._server = self._start_server()
        for mountpoint in (self.writer, self.reader):
            programs.mount(mountpoint.name, self._command(mountpoint), mountpoint)

    def stop_server(self) -> None:
        """Kill the server."""
        stop(self._server)

    def start_server(self) -> None:
        """Start the server again."""
        self._server = self._start_server()

    def _start_server(self) -> subprocess.Popen[bytes]:
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", self._scratch / "server.conf"]
        process = self._programs.start("server", command)
        wait_until(lambda: listens(self._port) or process.poll() is not None)
        if process.poll() is not None:
            raise NotPossible(f"sshd ends: {self._programs.output_of('server')}")
        return process

    def _command(self, mountpoint: Path) -> list[object]:
        options = {
            "port": self._port,
            "IdentityFile": self._scratch / "id",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        } | CACHE_OPTIONS
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["sshfs", "-f", "-F", "/dev/null", *words, f"127.0.0.1:{self._scratch}/data", mountpoint]


@contextmanager
def sshfs(scratch: Path) -> Iterator[Sshfs]:
    """Set up a share for the length of a block; NotPossible where that can't be."""
    require("sshfs", "sshd", "ssh", "ssh-keygen", "umount")
    programs = Programs(scratch)
    try:
        yield Sshfs(scratch, programs)
    finally:
        programs.close()
