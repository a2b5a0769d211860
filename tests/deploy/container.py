"""Runs programs of an image as a container runtime does: in namespaces, without privileges."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.deploy.container_image import Image
from tests.programs.external_programs import SEARCH_PATH

_ENTER: Final = """
set -eu
export PATH="$SETUP_PATH"
cd "$1"; jobs="$2"; state="$3"; image_path="$4"; shift 4
mount --bind . .
cd "$PWD"
mkdir -p dev proc jobs
mount --rbind /dev dev
mount -t proc proc proc
mount --bind "$jobs" jobs
mount -o remount,bind,ro jobs
mount --bind "$state" var/lib/jobsvc
mount -o remount,bind,ro .
chroot=$(command -v chroot); setpriv=$(command -v setpriv)
unset SETUP_PATH
export PATH="$image_path"
exec "$setpriv" --no-new-privs "$chroot" --userspec="$CONTAINER_USER" --groups= . "$@"
"""
"""Mounts, with a read-only root file system; then the user of the image."""


@dataclass(frozen=True, slots=True)
class Container:
    """A process of an image, on the network of this host."""

    supervisor: subprocess.Popen[bytes]
    """Has the exit code of the process."""

    @property
    def pid(self) -> int:
        """The process, by its number on this host; in the container it is 1."""
        children = Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children")
        return int(children.read_text())


@contextmanager
def container(
    image: Image, words: list[str], *, jobs: Path, state: Path, output: Path, **variables: str
) -> Iterator[Container]:
    """Run a command of an image during a block; its standard output and error go to `output`."""
    environment = dict(variable.split("=", 1) for variable in image.config["Env"])
    script = ("sh", "-c", _ENTER, "sh", image.root, jobs, state, environment["PATH"], *words)
    given = {"CONTAINER_USER": image.config["User"], "SETUP_PATH": SEARCH_PATH, "PATH": SEARCH_PATH}
    with output.open("wb") as stream:
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", *map(str, script)],
            env={**environment, **variables, **given},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        yield Container(process)
    finally:
        process.kill()
        process.wait()
