"""GlusterFS on the loopback interface: one brick, and two mounts as on two hosts."""

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

_BRICK: Final = """
volume posix
  type storage/posix
  option directory {folder}
end-volume
volume brick
  type features/locks
  subvolumes posix
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow *
  subvolumes brick
end-volume
"""
_CLIENT: Final = """
volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume brick
end-volume
volume write-behind
  type performance/write-behind
  subvolumes client
end-volume
volume md-cache
  type performance/md-cache
  subvolumes write-behind
end-volume
"""


class Gluster:
    """A share on GlusterFS."""

    name = "gluster"
    keeps_ctime = True

    def __init__(self, scratch: Path, programs: Programs) -> None:
        self.writer = scratch / "writer"
        self.reader = scratch / "reader"
        self._scratch = scratch
        self._programs = programs
        self._port = free_port()
        (scratch / "brick").mkdir()
        (scratch / "brick.vol").write_text(_BRICK.format(folder=scratch / "brick", port=self._port))
        (scratch / "client.vol").write_text(_CLIENT.format(port=self._port))
        self._brick = self._start_brick()
        for mountpoint in (self.writer, self.reader):
            programs.mount(
                mountpoint.name, self._command("glusterfs", "client", mountpoint.name, mountpoint), mountpoint
            )

    def stop_server(self) -> None:
        """Kill the brick."""
        stop(self._brick)

    def start_server(self) -> None:
        """Start the brick again."""
        self._brick = self._start_brick()

    def _start_brick(self) -> subprocess.Popen[bytes]:
        process = self._programs.start("brick", self._command("glusterfsd", "brick", "brick"))
        wait_until(lambda: listens(self._port) or process.poll() is not None)
        if process.poll() is not None:
            raise NotPossible(f"glusterfsd ends: {self._programs.output_of('brick')}")
        return process

    def _command(self, program: str, volume: str, name: str, *words: object) -> list[object]:
        log = self._scratch / f"{name}.log"
        return [program, "--no-daemon", "-f", self._scratch / f"{volume}.vol", "-l", log, *words]


@contextmanager
def gluster(scratch: Path) -> Iterator[Gluster]:
    """Set up a share for the length of a block; NotPossible where that can't be."""
    require("glusterfsd", "glusterfs", "umount")
    programs = Programs(scratch)
    try:
        yield Gluster(scratch, programs)
    finally:
        programs.close()
