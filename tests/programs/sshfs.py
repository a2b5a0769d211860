"""A real sshfs mount of a local directory, with its own sshd on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.programs.ports import free_port

SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING: Final = [program for program in ("sshfs", "ssh-keygen", "fusermount3") if not shutil.which(program)]

needs_sshfs = pytest.mark.skipif(
    bool(MISSING) or SSHD is None or os.geteuid() != 0 or not Path("/dev/fuse").exists(),
    reason=f"needs root, /dev/fuse, sshd, sshfs, ssh-keygen and fusermount3 (missing: {MISSING})",
)


class Sshfs:
    """An SFTP server for `real`, mounted at `path` as often as needed."""

    def __init__(self, home: Path, real: Path) -> None:
        self.path = home / "mounted"
        self._home = home
        self._real = real
        self._port = free_port()

    @contextmanager
    def served(self) -> Iterator[None]:
        """Run the server with its own keys during a block."""
        self.path.mkdir(parents=True)
        for key in ("host", "id"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._home / key)
        lines = (
            f"Port {self._port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self._home / 'host'}",
            f"AuthorizedKeysFile {self._home / 'id.pub'}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "Subsystem sftp internal-sftp",
        )
        (self._home / "sshd.conf").write_text("\n".join((*lines, "")))
        Path("/run/sshd").mkdir(exist_ok=True)
        assert SSHD is not None
        server = subprocess.Popen(
            [SSHD, "-D", "-f", self._home / "sshd.conf"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            server.terminate()
            server.wait()

    @contextmanager
    def mounted(self, *options: str) -> Iterator[Path]:
        """Mount it during a block."""
        self.mount(*options)
        try:
            yield self.path
        finally:
            self.unmount()

    def mount(self, *options: str) -> None:
        known = (
            f"port={self._port}",
            f"IdentityFile={self._home / 'id'}",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        )
        words = ("sshfs", "-o", ",".join((*known, *options)), f"127.0.0.1:{self._real}", self.path)
        ends = time.monotonic() + 20
        while _run(*words, check=False) != 0:  # the server may not listen yet
            assert time.monotonic() < ends, "sshfs does not mount"
            time.sleep(0.1)

    def unmount(self) -> None:
        """Unmount it immediately, even while it is in use."""
        _run("fusermount3", "-u", "-z", self.path)


def _run(*words: object, check: bool = True) -> int:
    return subprocess.run(
        list(map(str, words)), check=check, stdin=subprocess.DEVNULL, capture_output=True, timeout=30
    ).returncode
