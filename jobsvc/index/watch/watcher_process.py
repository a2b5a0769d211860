"""The watcher process, `python -m jobsvc.index.watch.watcher_process ROOT INTERVAL SIZE`: report changes.

INTERVAL is the heartbeat interval in seconds, SIZE the maximum directories of a merged inotify group. Each
line on standard input is a JSON array of directories to watch, relative to ROOT. Lines on standard output:

    ready            ROOT itself is watched
    watched N        the existing directories of the Nth array are watched (counted from 1)
    limit-reached N  the Nth array is not watched: the system allows no more watches
    new ID, gone ID  a name was added to ROOT, or removed from it
    changed ID       the job's record or the directory itself changed
    log ID           another file in the directory was written to; sent with the next heartbeat, because logs
                     are written all the time
    moved ID/NAME    a name was added or removed, in the directory (NAME) or in its folder NAME
    unwatched ID     the directory is no longer watched; a new array may contain it
    unwatchable ID   it is no longer watched and must not be sent again: a name in it is not UTF-8
    heartbeat T      all events before T (CLOCK_MONOTONIC, seconds) have been written

A name in ROOT that is not a valid job id is never written: it may contain a newline, and the rest would be
read as a separate line.

Heartbeats are in-band: every inotify group also watches a memfd. Touching it queues an event behind all
earlier ones; when it arrives from every group, everything before it has been delivered. The process exits
when standard input is closed, when its parent exits, when ROOT cannot be watched, or when the kernel dropped
events of ROOT.
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
from jobsvc.index.watch.inotify_group import InotifyGroup, LimitReached, RawChanges, RootGroup, should_merge
from jobsvc.storage.layout import is_job_id

_ADDED: Final = 1
_MODIFIED: Final = 2
_RECORD: Final = "status.json"
_GROWN: Final = "log "


def lines_of(root: str, changes: RawChanges, *, is_root: bool) -> set[str]:
    """Return the protocol lines for a batch of changes; `is_root` if they come from the root's group.

    Only the root's group reports removed directories. A directory's own watch reports its removal too, but
    possibly after the root's group has reported a new directory of the same name.
    """
    start = len(root.rstrip("/")) + 1
    lines = set()
    for kind, path in changes:
        job, _, inner = path[start:].partition("/")
        name, _, rest = inner.partition("/")
        if not path.startswith(root) or not is_job_id(job):
            continue
        if not inner:
            lines.add(_root_line(kind, job, path) if is_root else f"changed {job}")
        elif kind != _MODIFIED:
            lines.add(f"changed {job}" if name == _RECORD else f"moved {job}/{_printable(name)}")
        elif not rest:
            lines.add(f"changed {job}" if name == _RECORD else f"{_GROWN}{job}")
    # A name added and removed in one batch: the order is unknown, and `new` causes a refresh and a watch.
    return {line for line in lines if line and not (line[:5] == "gone " and f"new {line[5:]}" in lines)}


def _root_line(kind: int, job: str, path: str) -> str:
    if kind == _MODIFIED:
        return f"changed {job}" if os.path.isdir(path) else ""  # noqa: PTH112 - creating a Path per event costs more
    return f"new {job}" if kind == _ADDED else f"gone {job}"


def _printable(name: str) -> str:
    return name.replace("\n", "?").replace("\r", "?")


def path_in_error(root: str, message: str) -> str | None:
    """Return the job id in RustNotify's message "Unable to decode path …"; None if there is none.

    The path in the message is quoted and escaped, but its slashes are unchanged.
    """
    depth = root.rstrip("/").count("/") + 1
    parts = message.partition('"')[2].rpartition('"')[0].split("/")
    return parts[depth] if len(parts) > depth + 1 else None


class Watcher:
    """Manage all inotify groups and the heartbeat.

    The main thread adds watches and starts heartbeats; each group has a thread that reports events. The lock
    protects the state and the writing of a batch of lines.
    """

    def __init__(
        self,
        root: str,
        heartbeat_interval: float,
        max_group_size: int,
        *,
        stdin_fd: int = 0,
        stdout_fd: int = 1,
    ) -> None:
        """Set up the root's group. `heartbeat_interval` is in seconds.

        `stdin_fd` and `stdout_fd` are the descriptors of standard input and output. Raises LimitReached if
        the root cannot be watched.
        """
        self._stdin_fd = stdin_fd
        self._stdout_fd = stdout_fd
        self._root = os.path.realpath(root)
        self._heartbeat_interval = heartbeat_interval
        self._max_group_size = max_group_size
        # A memfd: on a disk, setting the timestamp can wait for other writes, which delays the heartbeat.
        self._heartbeat_fd = os.memfd_create("jobsvc-heartbeat", os.MFD_CLOEXEC)
        self._heartbeat_file = f"/proc/self/fd/{self._heartbeat_fd}"
        self._lock = threading.Lock()
        self._root_group = RootGroup([self._root], self._heartbeat_file, self._on_events, self._on_failed)
        self._groups: list[InotifyGroup] = []
        self._retiring: set[InotifyGroup] = set()
        self._pending_groups: set[InotifyGroup] = set()
        self._heartbeats = 0
        self._heartbeat_at = 0.0
        self._arrays_read = 0
        self._grown_logs: set[str] = set()

    def run(self) -> None:
        """Watch directories and send heartbeats until standard input is closed."""
        self._write_lines(["ready"])
        self._root_group.start()
        rest = b""
        due = monotonic()
        while True:
            if select.select([self._stdin_fd], [], [], max(0.0, due - monotonic()))[0]:
                data = os.read(self._stdin_fd, 1 << 16)
                if not data:
                    return
                *arrays, rest = (rest + data).split(b"\n")
                for array in arrays:
                    self._add_watches(json.loads(array))
                    due = self._send_heartbeat(due)
            due = self._send_heartbeat(due)

    def _on_events(self, group: InotifyGroup, changes: RawChanges) -> bool:
        """Write the lines for a batch of changes, on the group's thread. Returns whether it continues."""
        is_heartbeat = any(path == self._heartbeat_file for _, path in changes)
        all_lines = lines_of(self._root, changes, is_root=group is self._root_group)
        grown_logs = {line for line in all_lines if line.startswith(_GROWN)}
        lines = sorted(all_lines - grown_logs)
        with self._lock:
            self._grown_logs |= grown_logs
            if is_heartbeat:
                self._pending_groups.discard(group)
                if not self._pending_groups:
                    lines += [*sorted(self._grown_logs), f"heartbeat {self._heartbeat_at!r}"]
                    self._grown_logs.clear()
            self._write_lines(lines)
            if not is_heartbeat or group.retire_after is None or self._heartbeats < group.retire_after:
                return True
            self._retiring.discard(group)
            return False

    def _write_lines(self, lines: Iterable[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        while data:
            data = data[os.write(self._stdout_fd, data) :]

    def _send_heartbeat(self, due: float) -> float:
        """Start a heartbeat if it is due; return when the next one is."""
        if monotonic() < due:
            return due
        self._start_heartbeat()
        return monotonic() + self._heartbeat_interval

    def _start_heartbeat(self) -> None:
        """Touch the heartbeat file, unless a group has not yet reported the previous heartbeat."""
        with self._lock:
            if self._pending_groups:
                return
            self._pending_groups = {self._root_group, *self._groups, *self._retiring}
            self._heartbeats += 1
            self._heartbeat_at = monotonic()
            os.utime(self._heartbeat_fd)

    def _add_watches(self, folders: list[str]) -> None:
        self._arrays_read += 1
        try:
            self._add(f"{self._root}/{folder}" for folder in folders)
        except LimitReached:
            with self._lock:
                self._write_lines([f"limit-reached {self._arrays_read}"])
            return
        with self._lock:
            self._write_lines([f"watched {self._arrays_read}"])
        self._merge()

    def _add(self, folders: Iterable[str]) -> None:
        group = InotifyGroup(folders, self._heartbeat_file, self._on_events, self._on_failed)
        if group.size:
            with self._lock:
                self._groups.append(group)
            group.start()

    def _merge(self) -> None:
        """Replace the last two groups by one while should_merge() says so.

        The old groups run until the heartbeat after the merge, so that no event is lost. If the watch limit
        is reached, they are kept.
        """
        while should_merge([group.size for group in self._groups], self._max_group_size):
            with self._lock:
                old = self._groups[-2:]
            try:
                self._add(dict.fromkeys(folder for group in old for folder in group.folders))
            except LimitReached:
                return
            with self._lock:
                for group in old:
                    if group in self._groups:  # the group may have failed in the meantime
                        self._groups.remove(group)
                        group.retire_after = self._heartbeats + 1
                        self._retiring.add(group)

    def _on_failed(self, group: InotifyGroup, message: str) -> None:
        """Report the directories of a failed group as unwatched.

        A group fails at a name that is not UTF-8; the job with that name is reported as unwatchable. Any
        other failure ends the process.
        """
        unwatchable = path_in_error(self._root, message)
        if unwatchable is None:
            _end(message)
        start = len(self._root.rstrip("/")) + 1
        with self._lock:
            self._pending_groups.discard(group)
            # Also for a retired group: it may hold events from before its replacement started.
            self._retiring.discard(group)
            if group in self._groups:
                self._groups.remove(group)
            jobs = {folder[start:].partition("/")[0] for folder in group.folders}
            self._write_lines(
                f"unwatchable {job}" if job == unwatchable else f"unwatched {job}" for job in sorted(jobs)
            )


def _end(reason: str) -> NoReturn:
    """Write the reason to standard error and exit at once: RustNotify's threads cannot be stopped."""
    os.write(2, f"{reason}\n".encode())
    os._exit(1)


def main(root: str, heartbeat_interval: str, max_group_size: str) -> None:
    """Run the watcher process. The kernel kills it when its parent exits, even if a thread hangs."""
    die_with_parent()
    try:
        Watcher(root, float(heartbeat_interval), int(max_group_size)).run()
    except LimitReached as exc:
        _end(str(exc))
    except BrokenPipeError:
        pass
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:4])
