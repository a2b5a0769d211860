"""The real watcher process, controlled over its pipes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobsvc.index.watch import watcher_process
from jobsvc.index.watch.inotify_group import should_merge
from jobsvc.index.watch.watcher_process import lines_of, path_in_error
from tests.eventually import wait_until

ROOT = "/farm/jobs"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({(1, "/farm/jobs/a")}, {"new a"}),
        ({(3, "/farm/jobs/a")}, {"gone a"}),
        ({(1, "/farm/jobs/a"), (3, "/farm/jobs/a")}, {"new a"}),
        ({(2, "/farm/jobs/a/status.json")}, {"changed a"}),
        ({(1, "/farm/jobs/a/status.json")}, {"changed a"}),
        ({(2, "/farm/jobs/a/render.log")}, {"log a"}),
        ({(1, "/farm/jobs/a/output")}, {"moved a/output"}),
        ({(3, "/farm/jobs/a/output/film.mp4")}, {"moved a/output"}),
        ({(2, "/farm/jobs/a/output/film.mp4")}, set()),
        ({(1, "/farm/jobs/a/two\nlines")}, {"moved a/two?lines"}),
        ({(1, "/farm/jobs/x\nheartbeat 9e9")}, set()),
        ({(3, "/farm/jobs/x\ngone a")}, set()),
        ({(1, "/farm/jobs/x\nnonsense/status.json")}, set()),
        ({(2, "/farm/jobs/x\nnonsense/render.log")}, set()),
        ({(3, "/farm/jobs/no job id/output")}, set()),
        ({(2, "/farm/jobs/no-such-directory")}, set()),
        ({(3, "/farm/jobs")}, set()),
        ({(1, "/proc/self/fd/3")}, set()),
    ],
)
def test_change_is_reported_by_its_meaning(changes: set[tuple[int, str]], lines: set[str]) -> None:
    assert lines_of(ROOT, changes, is_root=True) == lines


def test_removal_of_a_directory_is_reported_once_by_the_root() -> None:
    assert lines_of(ROOT, {(3, "/farm/jobs/a")}, is_root=False) == {"changed a"}


@pytest.mark.parametrize(
    ("message", "job"),
    [
        (r'Unable to decode path "/farm/jobs/a/\xFF\xFE.json" to string', "a"),
        (r'Unable to decode path "/farm/jobs/a/x \"y\"/\xFF" to string', "a"),
        (r'Unable to decode path "/farm/jobs/\xFF" to string', None),
        ("error in underlying watcher", None),
    ],
)
def test_job_with_a_name_that_is_not_utf_8_is_found(message: str, job: str | None) -> None:
    assert path_in_error(ROOT, message) == job


@pytest.mark.parametrize(
    ("sizes", "merged"), [([5], False), ([5, 5], True), ([100, 5], False), ([10, 5], True), ([60, 60], False)]
)
def test_two_groups_of_similar_size_are_merged_up_to_a_size(sizes: list[int], merged: bool) -> None:  # noqa: FBT001 - a table
    assert should_merge(sizes, 100) is merged


class Program:
    """The program with its input and output lines, on a thread of the test or, as in production, as a
    process.
    """

    def __init__(self, root: Path) -> None:
        commands, self._commands_fd = os.pipe()
        self._events_fd, events = os.pipe()
        self.lines: list[str] = []
        self._rest = b""
        self._run(root, commands, events)

    def _run(self, root: Path, commands: int, events: int) -> None:
        self._program = watcher_process.Watcher(str(root), 0.05, 64, stdin_fd=commands, stdout_fd=events)
        self._ends = (commands,)  # its threads may still write to the other end
        self._thread = threading.Thread(target=self._program.run, daemon=True)
        self._thread.start()

    def watch(self, *folders: str) -> None:
        os.write(self._commands_fd, json.dumps(folders).encode() + b"\n")

    def read_until(self, is_expected: Callable[[str], bool], deadline: float = 20) -> str:
        """Read lines until an expected one."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            for line in self.lines:
                if is_expected(line):
                    return line
            if select.select([self._events_fd], [], [], 0.05)[0]:
                *lines, self._rest = (self._rest + os.read(self._events_fd, 1 << 16)).split(b"\n")
                self.lines += [line.decode() for line in lines]
        raise AssertionError(self.lines)

    def close(self) -> None:
        os.close(self._commands_fd)
        self._thread.join(5)
        for end in self._ends:
            os.close(end)


class Process(Program):
    """The program as a process."""

    def _run(self, root: Path, commands: int, events: int) -> None:
        arguments = [sys.executable, "-m", "jobsvc.index.watch.watcher_process", str(root), "0.05", "64"]
        self.process = subprocess.Popen(arguments, stdin=commands, stdout=events)
        os.close(commands)
        os.close(events)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._commands_fd)
        os.close(self._events_fd)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    return tmp_path


@pytest.fixture
def program(root: Path) -> Iterator[Program]:
    program = Program(root)
    program.read_until(lambda line: line == "ready")
    yield program
    program.close()


@pytest.fixture
def process(root: Path) -> Iterator[Process]:
    process = Process(root)
    process.read_until(lambda line: line == "ready")
    yield process
    process.close()


def test_events_before_a_heartbeat_are_reported_before_it(program: Program, root: Path) -> None:
    program.watch("a")
    program.read_until(lambda line: line == "watched 1")
    (root / "a" / "status.json").write_text("{}")
    written = time.monotonic()
    program.read_until(lambda line: line.startswith("heartbeat ") and float(line.split()[1]) > written)
    first_heartbeat_after = next(
        place
        for place, line in enumerate(program.lines)
        if line.startswith("heartbeat ") and float(line.split()[1]) > written
    )
    assert "changed a" in program.lines[:first_heartbeat_after]


def test_growing_log_is_reported_once_per_heartbeat_and_before_it(program: Program, root: Path) -> None:
    log = (root / "a" / "render.log").open("a")
    program.watch("a")
    program.read_until(lambda line: line == "watched 1")
    with log:
        for _ in range(50):
            log.write("line\n")
            log.flush()
    written = time.monotonic()
    program.read_until(lambda line: line.startswith("heartbeat ") and float(line.split()[1]) > written)
    lines = [line for line in program.lines if line.startswith("heartbeat ") or line == "log a"]
    growths = [place for place, line in enumerate(lines) if line == "log a"]
    assert growths
    assert all(lines[place + 1].startswith("heartbeat ") for place in growths)


def test_name_with_a_newline_in_the_root_adds_no_line(program: Program, root: Path) -> None:
    for name in ("x\nnonsense", "x\ngone a", "x\nheartbeat 9e9"):
        (root / name).mkdir()
    (root / "c").mkdir()
    program.read_until(lambda line: line == "new c")
    assert {line.partition(" ")[0] for line in program.lines} <= {"ready", "heartbeat", "new"}
    assert not [line for line in program.lines if line in {"gone a", "heartbeat 9e9"}]


def test_missing_directories_are_skipped(program: Program, root: Path) -> None:
    program.watch("none", "a", "a/none")
    program.read_until(lambda line: line == "watched 1")
    (root / "a" / "x").write_text("")
    program.read_until(lambda line: line == "moved a/x")


def test_merged_group_receives_all_events(program: Program, root: Path) -> None:
    for number in range(20):
        (root / f"job-{number}").mkdir()
        program.watch(f"job-{number}")
    program.read_until(lambda line: line == "watched 20")
    for number in range(20):
        (root / f"job-{number}" / "status.json").write_text("{}")
    for number in range(20):
        program.read_until(lambda line, number=number: line == f"changed job-{number}")  # type: ignore[misc]  # bound now


def test_name_that_is_not_utf_8_makes_its_job_unwatchable_and_its_group_unwatched(
    program: Program, root: Path
) -> None:
    program.watch("a", "b")
    program.read_until(lambda line: line == "watched 1")
    Path(os.fsdecode(os.fsencode(root / "a") + b"/\xff")).write_text("")
    program.read_until(lambda line: line == "unwatchable a")
    program.read_until(lambda line: line == "unwatched b")
    program.watch("b")
    program.read_until(lambda line: line == "watched 2")
    (root / "b" / "status.json").write_text("{}")
    program.read_until(lambda line: line == "changed b")


def test_process_ends_with_its_standard_input(process: Process) -> None:
    os.close(process._commands_fd)
    process._commands_fd = os.open(os.devnull, os.O_WRONLY)
    assert process.process.wait(20) == 0


def test_names_in_the_root_that_are_not_utf_8_are_skipped(process: Process, root: Path) -> None:
    process.watch("a")
    process.read_until(lambda line: line == "watched 1")
    for number in range(10):
        wrong = Path(os.fsdecode(os.fsencode(root) + b"/\xff%d" % number))
        wrong.mkdir()
        wrong.chmod(0o700)
        wrong.rename(os.fsdecode(os.fsencode(root) + b"/c\xfe%d" % number))
    (root / "c").mkdir()
    process.read_until(lambda line: line == "new c")
    (root / "c").rename(root / "d")
    process.read_until(lambda line: line == "new d")
    process.read_until(lambda line: line == "gone c")
    (root / "d").chmod(0o700)
    process.read_until(lambda line: line == "changed d")
    (root / "d").rmdir()
    process.read_until(lambda line: line == "gone d")
    (root / "a" / "status.json").write_text("{}")
    process.read_until(lambda line: line == "changed a")
    commands = time.monotonic()
    process.read_until(lambda line: line.startswith("heartbeat ") and float(line.split()[1]) > commands)
    assert process.process.poll() is None
    assert {line for line in process.lines if not line.startswith("heartbeat ")} == {
        "ready", "watched 1", "new c", "gone c", "new d", "changed d", "gone d", "changed a"
    }  # fmt: skip


def test_overflow_of_the_event_queue_ends_the_process(process: Process, root: Path) -> None:
    os.kill(process.process.pid, signal.SIGSTOP)
    max_queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if max_queued > 100_000:
        pytest.skip("a queue of events is very long here")
    folder = root / "job-1"
    for _ in range(max_queued // 2 + 10):
        folder.mkdir()
        folder.rmdir()
    os.kill(process.process.pid, signal.SIGCONT)
    assert process.process.wait(20) == 1


def test_missing_root_ends_the_process(tmp_path: Path) -> None:
    process = Process(tmp_path / "none")
    assert process.process.wait(20) == 1
    process.close()


def test_process_dies_with_its_parent(root: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "program = [sys.executable, '-m', 'jobsvc.index.watch.watcher_process', sys.argv[1], '0.05', '64']\n"
        "child = subprocess.Popen(program,"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
