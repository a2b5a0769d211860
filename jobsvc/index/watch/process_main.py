"""The watcher's own process, `python -m jobsvc.index.watch.process_main ROOT PULSE CHUNK`: tells of changes.

Lines on standard input say what to watch, each a JSON array of directories relative to ROOT. It says

    ready            ROOT itself is watched
    armed N          the Nth array is watched, as far as its directories are there (counted from 1)
    refused N        the Nth array is not: the system allows no more watches
    new ID, gone ID  a name came into ROOT, or went
    job ID           something happened in the directory
    log ID           a file in the directory was written to; told with the next beat, since logs always are
    moved ID/NAME    a name came into the directory, or went
    drop ID          the directory is watched no more: a new array may name it
    blind ID         it is watched no more, and should not be: a name in it can't be told
    beat T           everything that happened before T (CLOCK_MONOTONIC, seconds) has been told

A name in ROOT that is no job id never appears in a line: it may contain a newline, and what follows would be
read as a line of its own.

The beat's proof is in band: each lookout also watches a nameless file of ours, whose event comes out of the
queue behind those before it. Ends when standard input or its parent does, when ROOT can't
be watched, or when the kernel has dropped events of ROOT.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Final, NoReturn

from jobsvc.index.processes.parent_death import die_with_parent
from jobsvc.index.watch.inotify_group import InotifyGroup, LimitReached, RawChanges, RootLookout, should_merge
from jobsvc.storage.layout import is_job_id

_ADDED: Final = 1
_MODIFIED: Final = 2
_RECORD: Final = "status.json"
_GROWN: Final = "log "


def lines_of(root: str, changes: RawChanges, *, top: bool) -> set[str]:
    """Say what a batch of changes means, one line each; `top` of the lookout over the root.

    A directory's own watch tells of its end as well, but later than the root may tell of its successor.
    """
    start = len(root.rstrip("/")) + 1
    lines = set()
    for kind, path in changes:
        job, _, inner = path[start:].partition("/")
        name, _, rest = inner.partition("/")
        if not path.startswith(root) or not is_job_id(job):
            continue
        if not inner:
            lines.add(_of_root(kind, job, path) if top else f"job {job}")
        elif kind != _MODIFIED:
            lines.add(f"job {job}" if name == _RECORD else f"moved {job}/{_printable(name)}")
        elif not rest:
            lines.add(f"job {job}" if name == _RECORD else f"{_GROWN}{job}")
    # Came and went within one batch: in which order is not told, and `new` has it looked at and watched.
    return {line for line in lines if line and not (line[:5] == "gone " and f"new {line[5:]}" in lines)}


def _of_root(kind: int, job: str, path: str) -> str:
    if kind == _MODIFIED:
        return f"job {job}" if os.path.isdir(path) else ""  # noqa: PTH112 - a path per event would cost more
    return f"new {job}" if kind == _ADDED else f"gone {job}"


def _printable(name: str) -> str:
    return name.replace("\n", "?").replace("\r", "?")


def path_in_error(root: str, message: str) -> str | None:
    """Take the job out of RustNotify's "Unable to decode path …"; its quoting leaves slashes alone."""
    depth = root.rstrip("/").count("/") + 1
    parts = message.partition('"')[2].rpartition('"')[0].split("/")
    return parts[depth] if len(parts) > depth + 1 else None


class WatcherProcess:
    """All lookouts and the pulse. The lock is held for bookkeeping and for writing a batch of lines."""

    def __init__(self, root: str, pulse: float, chunk: int, *, told: int = 0, tells: int = 1) -> None:
        """Prepare; `told` and `tells` are the descriptors of its standard input and output."""
        self._told = told
        self._tells = tells
        self._root = os.path.realpath(root)
        self._heartbeat_interval = pulse
        self._chunk = chunk
        # In memory: on a disk its time may have to wait for others' to be written, and the beat with it.
        self._heartbeat_fd = os.memfd_create("jobsvc-beat", os.MFD_CLOEXEC)
        self._heartbeat_file = f"/proc/self/fd/{self._heartbeat_fd}"
        self._lock = threading.Lock()
        self._top = RootLookout([self._root], self._heartbeat_file, self._on_events, self._failed)
        self._others: list[InotifyGroup] = []
        self._leaving: set[InotifyGroup] = set()
        self._pending_groups: set[InotifyGroup] = set()
        self._touches = 0
        self._touched = 0.0
        self._arrays = 0
        self._grown: set[str] = set()

    def run(self) -> None:
        """Go on until standard input ends."""
        self._write_line(["ready"])
        self._top.start()
        rest = b""
        due = monotonic()
        while True:
            if select.select([self._told], [], [], max(0.0, due - monotonic()))[0]:
                data = os.read(self._told, 1 << 16)
                if not data:
                    return
                *arrays, rest = (rest + data).split(b"\n")
                for array in arrays:
                    self._add_watches(json.loads(array))
                    due = self._send_heartbeat(due)
            due = self._send_heartbeat(due)

    def _send_heartbeat(self, due: float) -> float:
        """Send the next pulse if it is due, and say when the one after it is."""
        if monotonic() < due:
            return due
        self._start_heartbeat()
        return monotonic() + self._heartbeat_interval

    def _add_watches(self, folders: list[str]) -> None:
        self._arrays += 1
        try:
            self._add(f"{self._root}/{folder}" for folder in folders)
        except LimitReached:
            with self._lock:
                self._write_line([f"refused {self._arrays}"])
            return
        with self._lock:
            self._write_line([f"armed {self._arrays}"])
        self._merge()

    def _add(self, folders: Iterable[str]) -> None:
        lookout = InotifyGroup(folders, self._heartbeat_file, self._on_events, self._failed)
        if lookout.size:
            with self._lock:
                self._others.append(lookout)
            lookout.start()

    def _merge(self) -> None:
        """Let one lookout take over from the last two where they have grown alike."""
        while should_merge([lookout.size for lookout in self._others], self._chunk):
            with self._lock:
                old = self._others[-2:]
            try:
                self._add(dict.fromkeys(folder for lookout in old for folder in lookout.folders))
            except LimitReached:
                return
            with self._lock:
                for lookout in old:
                    if lookout in self._others:  # it may have failed meanwhile
                        self._others.remove(lookout)
                        lookout.retire_after = self._touches + 1
                        self._leaving.add(lookout)

    def _start_heartbeat(self) -> None:
        """Send the next pulse through all lookouts, once the last has come out of each."""
        with self._lock:
            if self._pending_groups:
                return
            self._pending_groups = {self._top, *self._others, *self._leaving}
            self._touches += 1
            self._touched = monotonic()
            os.utime(self._heartbeat_fd)

    def _on_events(self, lookout: InotifyGroup, changes: RawChanges) -> bool:
        pulse = any(path == self._heartbeat_file for _, path in changes)
        found = lines_of(self._root, changes, top=lookout is self._top)
        grown = {line for line in found if line.startswith(_GROWN)}
        lines = sorted(found - grown)
        with self._lock:
            self._grown |= grown
            if pulse:
                self._pending_groups.discard(lookout)
                if not self._pending_groups:
                    lines += [*sorted(self._grown), f"beat {self._touched!r}"]
                    self._grown.clear()
            self._write_line(lines)
            leaves = lookout.retire_after
            if not pulse or leaves is None or self._touches < leaves:
                return True
            self._leaving.discard(lookout)
            return False

    def _failed(self, lookout: InotifyGroup, message: str) -> None:
        """Tell what is watched no more; a name that is not UTF-8 ends the lookout that came upon it."""
        blind = path_in_error(self._root, message)
        if blind is None:
            _end(message)
        start = len(self._root.rstrip("/")) + 1
        with self._lock:
            self._pending_groups.discard(lookout)
            # One that others had taken over from may have heard what they were too late for.
            self._leaving.discard(lookout)
            if lookout in self._others:
                self._others.remove(lookout)
            jobs = {folder[start:].partition("/")[0] for folder in lookout.folders}
            self._write_line(f"blind {job}" if job == blind else f"drop {job}" for job in sorted(jobs))

    def _write_line(self, lines: Iterable[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        while data:
            data = data[os.write(self._tells, data) :]


def _end(reason: str) -> NoReturn:
    """End at once: threads of RustNotify don't know of an end."""
    os.write(2, f"{reason}\n".encode())
    os._exit(1)


def main(root: str, pulse: str, chunk: str) -> None:
    """Run, and end with the parent, whatever hangs: the kernel sees to it."""
    die_with_parent()
    try:
        WatcherProcess(root, float(pulse), int(chunk)).run()
    except LimitReached as refused:
        _end(str(refused))
    except BrokenPipeError:
        pass
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:4])
