"""Read inotify(7) events of the root directly, because RustNotify fails at a name that is not UTF-8.

Anyone with write access to the root could otherwise end the watcher process with such a name, repeatedly.
Such a name in a job directory only costs that job its watch.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterator
from typing import Final

_ADDED: Final = 1
_MODIFIED: Final = 2
_DELETED: Final = 3

# Event bits, see inotify(7).
_ATTRIB: Final = 0x4
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_OVERFLOW: Final = 0x4000
_ONLYDIR: Final = 0x0100_0000
_KINDS: Final = {
    _CREATE: _ADDED, _MOVED_TO: _ADDED, _ATTRIB: _MODIFIED, _DELETE: _DELETED, _MOVED_FROM: _DELETED,
}  # fmt: skip
_EVENT: Final = struct.Struct("iIII")
"""struct inotify_event: watch, mask, cookie, and the length of the name that follows."""
_READ_BYTES: Final = 1 << 18


class RootNotify:
    """Report changes of one directory and of the heartbeat file, with RustNotify's interface."""

    def __init__(self, root: str, heartbeat_file: str) -> None:
        """Watch the directory `root` and `heartbeat_file`. Raises OSError."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call("inotify_init1", os.O_CLOEXEC)
        self._prefix = root.rstrip("/") + "/"
        self._heartbeat_file = heartbeat_file
        try:
            self._root_watch = self._add(root, _ONLYDIR | sum(_KINDS))
            self._add(heartbeat_file, _ATTRIB)
        except BaseException:
            os.close(self._fd)
            raise

    def watch(self, _debounce_ms: int, step_ms: int, _timeout: int, _stop: None) -> set[tuple[int, str]]:
        """Wait for changes, then `step_ms` for more, and return them.

        Raises RuntimeError if the kernel dropped events.
        """
        select.select([self._fd], [], [])
        time.sleep(step_ms / 1000)
        return set(self._changes(os.read(self._fd, _READ_BYTES)))

    def close(self) -> None:
        """Close the inotify instance."""
        os.close(self._fd)

    def _changes(self, events: bytes) -> Iterator[tuple[int, str]]:
        start = 0
        while start < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, start)
            start += _EVENT.size + length
            if mask & _OVERFLOW:
                raise RuntimeError("the event queue overflowed")
            kind = next((kind for bit, kind in _KINDS.items() if mask & bit), None)
            name = os.fsdecode(events[start - length : start].rstrip(b"\0"))
            if watch != self._root_watch:
                yield _MODIFIED, self._heartbeat_file
            elif kind is not None and name:  # other events concern the root itself
                yield kind, self._prefix + name

    def _add(self, path: str, mask: int) -> int:
        return self._call("inotify_add_watch", self._fd, os.fsencode(path), ctypes.c_uint32(mask))

    def _call(self, name: str, *arguments: object) -> int:
        result: int = getattr(self._libc, name)(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
