"""Opens a job's output where no storage need be asked: all of it is in the kernel's memory, or it is refused.

openat2(2) with RESOLVE_CACHED fails where a name is not in memory or its file system wants to be asked again;
on the file systems named here opening such a file, and asking its descriptor, waits for nothing either. So
these calls, and only these, are for the event loop. Whatever is not plainly as it is known is refused too:
the way through a thread finds out what it is.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from jobsvc.domain.job import Status
from jobsvc.storage.closer import close
from jobsvc.storage.identity import Identity
from jobsvc.storage.kept import KeptOutputs, folder_of, told
from jobsvc.storage.layout import STATUS_FILE, components
from jobsvc.storage.mounts import file_system
from jobsvc.storage.reader import Reading
from jobsvc.storage.walk import OpenFile

WAITLESS: Final = frozenset({"ext2", "ext3", "ext4", "f2fs", "ramfs", "tmpfs", "xfs"})
"""File systems whose open and fstat of a file in memory wait for no one: neither a disk nor another host."""

_OPENAT2: Final = 437
"""The call's number, the same on every machine."""
_WITHIN: Final = 0x02 | 0x04 | 0x20
"""RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS and RESOLVE_CACHED (Linux 5.12)."""
_NAME: Final = os.O_PATH | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_AS_NAME: Final = ctypes.byref(_How(_NAME, 0, _WITHIN))
_AS_FILE: Final = ctypes.byref(_How(_FILE, 0, _WITHIN))
_SIZE: Final = ctypes.sizeof(_How)
# Not ctypes.CDLL: what waits for nothing need not let another thread have the interpreter meanwhile.
_syscall = ctypes.PyDLL(None).syscall


class CachedRoot:
    """The root of all jobs, as far as it lies in memory; belongs to the event loop."""

    def __init__(self, path: Path, device: int, dispose: Callable[[object], None] = close) -> None:
        """Take the root and the device that it lies on: what is mounted within it may be of another kind.

        `dispose` closes what was kept, where that may wait.
        """
        self._prefix = f"{path}/"
        self._device = device
        self._kept = KeptOutputs(dispose)

    @classmethod
    def of(cls, path: Path, dispose: Callable[[object], None] = close) -> Self | None:
        """Look what the root lies on; None where opening may wait. Touches storage; OSError."""
        return cls(path, path.stat().st_dev, dispose) if file_system(path) in WAITLESS else None

    def open_output(self, known: Reading) -> OpenFile | None:
        """Open the output of a completed job whose record is still the one that is known, without a wait.

        None where that can't be, or where anything is not as expected. Never raises.
        """
        job = known.job
        path = job.output_path or ""
        names = components(path)
        if not (job.status is Status.COMPLETED and known.settled) or names is None or path.startswith("/"):
            return None
        folder = f"{self._prefix}{job.id}/"
        if not self._is(f"{folder}{STATUS_FILE}", known.identity):
            return None
        return self._kept.take(job.id, known.identity) or self._open_and_keep(known, folder, names)

    def let_go(self) -> None:
        """Close what was kept already when this was called last."""
        self._kept.let_go()

    def close(self) -> None:
        """Close all that is kept."""
        self._kept.close()

    def _is(self, path: str, identity: Identity) -> bool:
        """Whether a path leads to this version of a file of our device; to name it is told to no watch."""
        fd = _opened(path, _AS_NAME)
        if fd < 0:
            return False
        status = told(fd)
        os.close(fd)
        return status is not None and Identity.of(status) == identity and status.st_dev == self._device

    def _open_and_keep(self, known: Reading, folder: str, names: tuple[str, ...]) -> OpenFile | None:
        """Open the output and keep it for who asks next; its folders first, to see whether they moved."""
        folders = []
        for count in range(1, len(names)):
            fd = _opened(folder + "/".join(names[:count]), _AS_NAME)
            if fd >= 0 and (found := folder_of(fd)) is not None:
                folders.append(found)
        file = self._open(folder + "/".join(names), names[-1])
        if file is None or len(folders) < len(names) - 1:
            for passed in folders:
                os.close(passed.fd)
        else:
            self._kept.keep(known.job.id, known.identity, file, tuple(folders))
        return file

    def _open(self, path: str, name: str) -> OpenFile | None:
        """Open a regular file of our device that has a name still."""
        fd = _opened(path, _AS_FILE)
        if fd < 0:
            return None
        status = told(fd)
        if status is not None and self._is_output(status):
            return OpenFile(fd, Identity.of(status), name, status.st_nlink)
        os.close(fd)
        return None

    def _is_output(self, status: os.stat_result) -> bool:
        return stat.S_ISREG(status.st_mode) and status.st_nlink > 0 and status.st_dev == self._device


def _opened(path: str, how: object) -> int:
    """Call openat2; below 0 where it refused."""
    fd: int = _syscall(_OPENAT2, -1, os.fsencode(path), how, _SIZE)
    return fd
