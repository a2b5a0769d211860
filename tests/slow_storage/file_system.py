"""A FUSE file system that shows a folder and is slow or fails where a file of faults says so.

It is a program, so that a call that hangs in it never blocks the test itself: `python -m
tests.slow_storage.file_system FOLDER MOUNTPOINT FAULTS SECONDS`. FAULTS is a JSON file of faults by name.
Every call applies the file's current content; a delayed call continues as soon as its fault is removed from
the file. SECONDS is how long the kernel may cache names and sizes. The program ends when its standard input
closes, even if the process that holds it is killed.
"""

# ruff: noqa: ARG002 - the signatures are those of mfusepy.Operations

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mfusepy
import orjson

from tests.slow_storage.fault_modes import Fault

_PAUSE: Final = 0.01
_READDIRPLUS: Final = 1 << 13
"""FUSE_CAP_READDIRPLUS (fuse_common.h)."""


class FaultyFileSystem(mfusepy.Operations):  # type: ignore[misc]  # published without type information
    """The folder as it is shown."""

    use_ns = True

    def __init__(self, folder: str, faults_file: Path) -> None:
        self._folder = folder
        self._faults_file = faults_file
        self._known: tuple[int, dict[str, Fault]] = 0, {}
        """The mtime of the file of faults and what was in it; one attribute, because many threads set it."""
        self._fault_counts: Counter[str] = Counter()

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        conn_info.want &= ~_READDIRPLUS  # with it, listing the root waits for the slowest job in it
        conn_info.max_background = 256  # otherwise a dozen delayed reads delay all others

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        self._apply_faults("getattr", path)
        status = os.lstat(self._folder + path) if fh is None else os.fstat(fh)
        shown = {
            name: getattr(status, name) for name in ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid")
        }
        shown["st_size"] = status.st_size
        return shown | {f"st_{kind}time": getattr(status, f"st_{kind}time_ns") for kind in "amc"}

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        self._apply_faults("readdir", path)
        names = [".", "..", *os.listdir(self._folder + path)]  # noqa: PTH208 - names are needed
        for name in names:
            status = os.lstat(f"{self._folder}{path}/{name}")
            yield name, {"st_mode": status.st_mode, "st_ino": status.st_ino}, 0

    def open(self, path: str, flags: int) -> int:
        self._apply_faults("open", path)
        return os.open(self._folder + path, os.O_RDONLY)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._apply_faults("read", path, offset + size)
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def _apply_faults(self, call: str, path: str, end: int = 0) -> None:
        for name, fault in self._read_faults().items():
            if not fault.applies_to(call, path, end):
                continue
            self._fault_counts[name] += 1
            if fault.times is None or self._fault_counts[name] <= fault.times:
                self._wait(name, fault.seconds)
                if fault.error is not None:
                    raise mfusepy.FuseOSError(fault.error)

    def _wait(self, name: str, seconds: float) -> None:
        """Delay a call; like NFS, return early if the calling process is killed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and name in self._read_faults():
            if mfusepy._libfuse.fuse_interrupted():
                raise mfusepy.FuseOSError(errno.EINTR)
            time.sleep(min(_PAUSE, seconds))

    def _read_faults(self) -> dict[str, Fault]:
        status = os.stat(self._faults_file)  # noqa: PTH116 - called for every operation
        version, faults = self._known
        if status.st_mtime_ns != version:
            content: dict[str, Any] = orjson.loads(self._faults_file.read_bytes())
            faults = {name: Fault(**one) for name, one in content.items()}
            self._known = status.st_mtime_ns, faults
        return faults


def main(folder: str, mountpoint: str, faults_file: str, kernel_cache_s: str) -> None:
    """Mount, and serve until it is unmounted."""
    threading.Thread(target=_end_with_input, args=(mountpoint,), daemon=True).start()
    options: dict[str, Any] = {
        "attr_timeout": kernel_cache_s,
        "entry_timeout": kernel_cache_s,
        "negative_timeout": 0,
    }
    options["auto_cache"] = True  # otherwise opening a file waits for all its readers
    if (mfusepy.fuse_version_major, mfusepy.fuse_version_minor) >= (3, 12):
        options["max_threads"] = 200  # before, there was no limit
    mfusepy.FUSE(
        FaultyFileSystem(folder, Path(faults_file)),
        mountpoint,
        foreground=True,
        fsname="slow",
        use_ino=True,
        **options,
    )


def _end_with_input(mountpoint: str) -> None:
    sys.stdin.buffer.read()
    subprocess.run(["fusermount3", "-u", "-q", "-z", mountpoint], check=False)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
