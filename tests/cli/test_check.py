from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import check as command
from jobsvc.cli import job_check, main
from jobsvc.settings import OPTIONS
from jobsvc.storage.files.users import user_name
from jobsvc.storage.filesystem.mounts import file_system, watch_limit
from jobsvc.storage.filesystem.probe import FileSystemInfo, WriteProbe
from jobsvc.storage.jobs import record_reader
from tests.eventually import wait_until
from tests.programs.external_programs import without_coverage
from tests.programs.service_runner import PROJECT


@pytest.fixture(autouse=True)
def no_host_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("JOBSVC_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "jobs"
    root.mkdir()
    return root


def job(root: Path, name: str, record: dict[str, Any] | bytes | None, *outputs: str) -> None:
    (root / name).mkdir()
    for output in outputs:
        (root / name / output).write_bytes(b"rendered")
    if isinstance(record, dict):
        record = json.dumps({"owner": "ada", **record}).encode()
    if record is not None:
        (root / name / "status.json").write_bytes(record)


def check(root: Path, *words: str | Path, **variables: str) -> Result:
    return CliRunner().invoke(main, ["check", str(root), *map(str, words)], env=variables)


def job_lines(result: Result) -> list[str]:
    """Return the output about jobs, up to the summary; the lines about the storage follow it."""
    lines = result.output.splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("storage: "))
    return lines[:end]


def times(root: Path) -> dict[str, int]:
    """Return the modification times of a root and everything below it."""
    return {str(path): path.lstat().st_ctime_ns for path in (root, *root.rglob("*"))}


def test_valid_root_has_no_finding(root: Path) -> None:
    job(root, "a", {"status": "queued"})
    job(root, "b", {"status": "done", "outputPath": "film.mp4"}, "film.mp4")
    (root / ".hidden").mkdir()
    result = check(root)
    assert job_lines(result) == ["2 jobs, 0 with a finding; 1 other names ignored"]
    assert result.exit_code == 0


def test_every_bad_job_is_named_with_its_reason_in_order(root: Path) -> None:
    job(root, "e-lost", {"status": "completed", "outputPath": "../b-half/status.json"})
    job(root, "d-nothing", {"status": "completed"})
    job(root, "c-empty", None)
    job(root, "b-half", b'{"owner": "ada", "sta')
    job(root, "a-word", {"status": "paused"})
    result = check(root)
    lines = job_lines(result)
    assert result.exit_code == 1
    assert lines[0] == "a-word: status: 'paused' is not a known status"
    assert lines[1].startswith("b-half: status.json: not JSON (")
    assert lines[2:] == [
        "c-empty: status.json: is missing",
        "d-nothing: outputPath: missing, but the job is completed",
        "e-lost: outputPath: '../b-half/status.json' contains '..'",
        "5 jobs, 5 with a finding; 0 other names ignored",
    ]


def test_status_alias_or_output_root_makes_a_job_valid(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "film.mp4").touch()
    job(root, "a", {"status": "paused"})
    job(root, "b", {"status": "done", "outputPath": f"{tmp_path}/out/film.mp4"})
    assert check(root).exit_code == 1
    assert check(root, "--output-root", tmp_path / "out", "--status-alias", "paused=queued").exit_code == 0
    config = tmp_path / "jobsvc.toml"
    config.write_text('output-root = "out"\nstatus-alias = ["paused=queued"]\n')
    assert check(root, JOBSVC_CONFIG=str(config)).exit_code == 0


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        ({"status": "queued"}, []),
        ({"status": "rendering"}, ["progress", "startedAt"]),
        ({"status": "rendering", "phase": "beauty", "startedAt": "2026-11-20T09:14:07Z"}, []),
        ({"status": "rendering", "framesDone": 1, "startedAt": "2026-11-20T09:14:07Z"}, []),
        ({"status": "failed"}, ["error", "completedAt", "render.log"]),
        ({"status": "failed", "error": "no licence", "completedAt": "2026-11-20T09:14:07Z"}, ["render.log"]),
        ({"status": "canceled"}, ["completedAt"]),
    ],
)
def test_missing_keys_are_advice_and_no_finding(
    root: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], keys: list[str]
) -> None:
    monkeypatch.setattr(job_check, "birth_time", lambda _fd: 0)
    job(root, "a", record)
    result = check(root, "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["advice"] == {key: ["a"] for key in keys}
    lines = [line for line in check(root).output.splitlines() if line.startswith("advice: ")]
    assert [re.findall("'(.*)': a$", line) for line in lines] == [[key] for key in keys]


def test_failed_job_with_a_log_is_not_advised_to_have_one(root: Path) -> None:
    job(root, "a", {"status": "failed"}, "render.log")
    assert "render.log" not in json.loads(check(root, "--json").output)["advice"]


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        ({}, ["createdAt"]),
        ({"createdAt": "2026-11-20T09:14:07Z"}, []),
        ({"status": "queued"}, []),  # its last change may be that it was created
    ],
)
def test_missing_created_at_is_advice_where_storage_has_no_creation_times(
    root: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], keys: list[str]
) -> None:
    ended = {"status": "canceled", "completedAt": "2026-11-20T09:14:07Z"}
    job(root, "a", {**ended, **record})
    monkeypatch.setattr(job_check, "birth_time", lambda _fd: 0)
    assert json.loads(check(root, "--json").output)["advice"] == {}
    for module in (job_check, record_reader):
        monkeypatch.setattr(module, "birth_time", lambda _fd: None)
    assert json.loads(check(root, "--json").output)["advice"] == {key: ["a"] for key in keys}


def test_json_lines_end_with_the_summary(root: Path) -> None:
    job(root, "a", None)
    job(root, "b", {"status": "queued"})
    result = check(root, "--json")
    finding, summary = [json.loads(line) for line in result.output.splitlines()]
    assert summary.pop("storage").keys() >= {"fileSystem", "events", "watches", "timesKeptTo", "tried"}
    assert [finding, summary] == [
        {
            "job": "a",
            "code": "record-missing",
            "reason": "status.json: is missing",
        },
        {
            "jobs": 2,
            "findings": 1,
            "ignored": 0,
            "stalled": [],
            "advice": {},
            "user": user_name(os.geteuid()),
            "serviceUser": user_name(os.geteuid()),
        },
    ]


def test_storage_error_is_a_finding_of_its_job_alone(root: Path) -> None:
    job(root, "a", {"status": "done", "outputPath": f"{root.parent}/gone/film.mp4"})
    job(root, "b", {"status": "queued"})
    result = check(root, "--output-root", root.parent / "gone")
    assert job_lines(result) == [
        "a: storage: ENOENT (No such file or directory)",
        "2 jobs, 1 with a finding; 0 other names ignored",
    ]


@pytest.mark.parametrize(
    ("words", "expected_line", "code"),
    [
        (
            ["/missing"],
            "Error: jobs-root: '/missing' cannot be listed: ENOENT (No such file or directory)",
            1,
        ),
        (["/etc/hosts"], "Error: jobs-root: '/etc/hosts' cannot be listed: ENOTDIR (Not a directory)", 2),
        ([], "Error: jobs-root: missing; set the directory that contains the job directories", 2),
        (["/", "--status-alias", "x"], "Error: status-alias: 'x' is not WORD=STATUS", 2),
    ],
)
def test_wrong_usage_is_a_one_line_error(words: list[str], expected_line: str, code: int) -> None:
    result = CliRunner().invoke(main, ["check", *words])
    assert result.exit_code == code
    assert result.output.startswith(expected_line)
    assert result.output.count("\n") == 1


def test_exit_code_of_a_finding_is_1(jobsvc: Callable[..., CompletedProcess[str]], root: Path) -> None:
    job(root, "a", None)
    result = jobsvc("check", str(root))
    assert (result.returncode, result.stderr) == (1, "")


def test_properties_of_the_storage_are_reported_and_nothing_is_written(root: Path) -> None:
    for number in range(5):
        job(root, f"job-{number}", {"status": "done", "outputPath": "output.mp4"}, "output.mp4")
    job(root, "deep", {"status": "queued"})
    before = times(root)
    result = check(root)
    kind = file_system(root)
    assert result.output.splitlines()[1:] == [
        f"storage: {kind}; inotify reports every change",
        f"watches: 6 directories to watch; the limit is {watch_limit()}",
        "timestamps: granularity 1 ns",
    ]
    assert times(root) == before


def test_output_directories_are_counted_as_they_would_be_watched(root: Path) -> None:
    job(root, "a", {"status": "done", "outputPath": "x/y/film.mp4"})
    assert "watches: 3 directories" in check(root).output


def test_network_storage_is_polled_and_has_no_time_without_a_job(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        command, "file_system_info", lambda _root: FileSystemInfo("nfs4", events=False, watches=5)
    )
    expected_line = "storage: nfs4; inotify reports only changes of this machine, so jobs are polled"
    assert check(root).output.splitlines()[1:] == [expected_line]


def test_probe_flag_tests_the_storage_and_leaves_nothing(root: Path) -> None:
    job(root, "a", {"status": "queued"})
    before = times(root / "a")
    result = check(root, "--probe-write")
    assert result.exit_code == 0
    event, clock, renaming = result.output.splitlines()[-3:]
    assert event == "write test: inotify reports changes of this machine"
    assert re.fullmatch(
        r"write test: timestamps advance in steps of [\d.]+ (ms|us|ns); "
        r"the storage's clock is equal to this machine's",
        clock,
    )
    assert re.fullmatch(r"write test: rename is atomic, in \d+ reads", renaming)
    assert os.listdir(root) == ["a"]  # noqa: PTH208 - the names are all that is wanted
    assert times(root / "a") == before


def test_probe_result_is_in_the_json_summary(root: Path) -> None:
    storage = json.loads(check(root, "--json", "--probe-write").output)["storage"]
    assert storage["fileSystem"] == file_system(root)
    assert storage["tried"].keys() == {"eventSeen", "clockStep", "clockAhead", "renameAtomic", "looks"}
    assert (storage["tried"]["eventSeen"], storage["tried"]["renameAtomic"]) == (True, True)


@pytest.mark.parametrize(
    ("trial", "expected_line", "code"),
    [
        (
            WriteProbe(event=True, clock_step=2.0, clock_offset=3.25, reads=9, torn_reads=0),
            ["steps of 2 s; the storage's clock is 3.25 s ahead of", "in 9 reads"],
            0,
        ),
        (
            WriteProbe(event=True, clock_step=4e-3, clock_offset=-0.5, reads=9, torn_reads=0),
            ["steps of 4 ms; the storage's clock is 500 ms behind"],
            0,
        ),
        (
            WriteProbe(event=False, clock_step=None, clock_offset=0, reads=9, torn_reads=2),
            ["DOES NOT REPORT", "do not advance", "NOT ATOMIC: 2 "],
            1,
        ),
        ("Read-only file system", ["write test failed: Read-only file system"], 0),
    ],
)
def test_probe_result_is_printed_and_torn_files_are_a_finding(
    root: Path, monkeypatch: pytest.MonkeyPatch, trial: WriteProbe | str, expected_line: list[str], code: int
) -> None:
    monkeypatch.setattr(command, "_run_probe", lambda _root: trial)
    result = check(root, "--probe-write")
    assert result.exit_code == code
    assert all(words in result.output for words in expected_line), result.output
    tried = json.loads(check(root, "--probe-write", "--json").output)["storage"]["tried"]
    assert tried == {"error": trial} if isinstance(trial, str) else tried["renameAtomic"] is not code


def test_missing_write_permission_is_reported(tmp_path: Path) -> None:
    result = check(Path("/proc/sys/fs"), "--probe-write")
    assert "write test failed: " in result.output


def interrupt_check(root: Path) -> int:
    """Interrupt a check while it writes; return its exit code."""
    words = [sys.executable, "-m", "jobsvc", "check", str(root), "--probe-write"]
    with subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE) as process:
        wait_until(lambda: os.listdir(root) or process.poll() is not None, 30)  # noqa: PTH208 - the names are all that is wanted
        assert all(name.startswith(".jobsvc-probe-") for name in os.listdir(root))  # noqa: PTH208 - likewise
        process.send_signal(signal.SIGTERM)
        return process.wait(30)


def test_interrupted_check_leaves_nothing_behind(root: Path) -> None:
    while (code := interrupt_check(root)) in {0, -signal.SIGTERM} and not os.listdir(root):  # noqa: PTH208 - likewise
        pass  # on a busy machine the write test may end before the signal
    assert code == 128 + signal.SIGTERM
    assert os.listdir(root) == []  # noqa: PTH208 - likewise


def make_link(path: Path) -> None:
    path.symlink_to("elsewhere")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "expected_line"),
    [
        (None, "is missing"),
        (make_link, "is a symbolic link"),
        (make_fifo, "is a FIFO"),
    ],
)
def test_finding_names_what_exists_instead_of_a_file(
    root: Path, make: Callable[[Path], None] | None, expected_line: str
) -> None:
    job(root, "log", {"status": "failed", "logPath": "own.log"})
    job(root, "output", {"status": "completed", "outputPath": "film.mp4"})
    job(root, "record", None)
    if make is not None:
        for path in ("log/own.log", "output/film.mp4", "record/status.json"):
            make(root / path)
    result = check(root)
    assert result.exit_code == 1
    assert job_lines(result)[:-1] == [
        f"log: logPath: 'own.log' {expected_line}",
        f"output: outputPath: 'film.mp4' {expected_line}",
        f"record: status.json: {expected_line}",
    ]


def test_directory_instead_of_a_log_or_a_record_is_named(root: Path) -> None:
    job(root, "log", {"status": "failed", "logPath": "own.log"})
    job(root, "record", None)
    for path in ("log/own.log", "record/status.json"):
        (root / path).mkdir()
    assert job_lines(check(root))[:-1] == [
        "log: logPath: 'own.log' is a directory",
        "record: status.json: is a directory",
    ]


@pytest.mark.parametrize(
    ("path", "expected_line"),
    [
        ("../log/status.json", "contains '..'"),
        ("a/../b", "contains '..'"),
        ("/etc/hostname", "is outside every output root"),
        ("link/film", "leads through 'link', which is a symbolic link"),
        ("status.json/film", "leads through 'status.json', which is not a directory"),
        ("a\0b", "contains a NUL character"),
        (".", "contains no name"),
        ("x/" * 65 + "y", "is longer than 4096 characters or 64 components"),
    ],
)
def test_finding_says_why_a_path_is_not_followed(
    root: Path, tmp_path: Path, path: str, expected_line: str
) -> None:
    (tmp_path / "out").mkdir()
    for name, record in (("log", {"logPath": path}), ("output", {"outputPath": path})):
        job(root, name, {"status": "completed", "outputPath": "film.mp4", **record}, "film.mp4")
        (root / name / "link").symlink_to(root)
    log, output, _ = job_lines(check(root, "--output-root", tmp_path / "out"))
    assert log == f"log: logPath: {path[:200]!r} {expected_line}"
    assert output == f"output: outputPath: {path[:200]!r} {expected_line}"


def test_absolute_path_without_an_output_root_is_reported(root: Path) -> None:
    job(root, "a", {"status": "done", "outputPath": "/etc/hostname"})
    assert "'/etc/hostname' is absolute, but no --output-root is configured" in check(root).output


def test_missing_log_is_not_a_finding(root: Path) -> None:
    job(root, "a", {"status": "queued", "logPath": "later.log"})
    job(root, "b", {"status": "failed"})
    job(root, "c", {"status": "rendering"}, "render.log")
    assert job_lines(check(root)) == ["3 jobs, 0 with a finding; 0 other names ignored"]


def test_default_log_is_read_too(root: Path) -> None:
    job(root, "a", {"status": "failed"})
    (root / "a" / "render.log").symlink_to("elsewhere")
    assert job_lines(check(root))[0] == "a: log: 'render.log' is a symbolic link"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_unreadable_file_is_reported_with_mode_and_owner() -> None:
    modules = "os, encodings.ascii, click._termui_impl, jobsvc.cli.check"
    program = f"import {modules}; os.setuid(65534); jobsvc.cli.main()"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        job(root, "log", {"status": "failed"}, "render.log")
        job(root, "output", {"status": "done", "outputPath": "film.mp4"}, "film.mp4")
        job(root, "record", {"status": "queued"})
        for path in ("log/render.log", "output/film.mp4", "record/status.json"):
            (root / path).chmod(0o600)
        words = [sys.executable, "-c", program, "check", folder, "--state-dir", folder]
        result = subprocess.run(
            words, capture_output=True, text=True, timeout=20, check=False, env=without_coverage()
        )
    denied = "cannot be read: EACCES (Permission denied);"
    assert result.stdout.splitlines()[:3] == [
        f"log: log: 'render.log' {denied} render.log has mode 0600 and belongs to root",
        f"output: outputPath: 'film.mp4' {denied} film.mp4 has mode 0600 and belongs to root",
        "record: status.json: permission denied",
    ]
    assert result.stdout.splitlines()[-1].startswith("user: nobody, but the state directory belongs to root")
    assert (result.returncode, result.stderr) == (1, "")


def test_stale_jobs_are_listed_and_are_not_a_finding(root: Path) -> None:
    for name, status in (("a", "rendering"), ("b", "queued"), ("c", "failed"), ("d", "queued")):
        job(root, name, {"status": status})
        if name != "d":
            os.utime(root / name / "status.json", (time.time() - 1000,) * 2)
    result = check(root)
    assert result.exit_code == 0
    assert "stalled: 2 unfinished jobs, not written for 900 s: a, b" in result.output.splitlines()
    assert json.loads(check(root, "--json").output)["stalled"] == ["a", "b"]
    assert "stalled" not in check(root, "--stalled-after", "0").output
    assert "stalled" not in check(root, "--stalled-after", "2000").output


def test_directory_of_jobs_is_not_a_job_and_is_named_if_there_are_no_jobs(root: Path) -> None:
    (root / "project").mkdir()
    job(root / "project", "a", {"status": "queued"})
    result = check(root)
    assert result.exit_code == 0
    assert job_lines(result) == ["0 jobs, 0 with a finding; 1 other names ignored"]
    assert (
        "no jobs found, but these directories contain jobs; is one of them the jobs root? project"
        in result.output
    )
    job(root, "b", {"status": "queued"})
    assert "no jobs found" not in check(root).output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_other_user_than_that_of_the_service_is_reported(root: Path, tmp_path: Path) -> None:
    assert "user:" not in check(root).output
    os.chown(tmp_path / "state", 65534, -1)
    expected_line = "user: root, but the state directory belongs to nobody"
    assert check(root).output.splitlines()[-1].startswith(expected_line)
    assert check(root, "--state-dir", root, JOBSVC_STATE_DIR="").output.count("user:") == 0
    summary = json.loads(check(root, "--json").output)
    assert (summary["user"], summary["serviceUser"]) == ("root", "nobody")
    assert "user: root can read more" in check(root, "--state-dir", tmp_path / "missing").output


def run_on_a_terminal(*words: str, piped: bool = False) -> tuple[str, str]:
    """Run it on a terminal; return the terminal's output, and standard output if it is piped."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    out = subprocess.PIPE if piped else follower
    command = [sys.executable, "-m", "jobsvc", "check", *words]
    with subprocess.Popen(command, cwd=PROJECT, stdin=follower, stdout=out, stderr=follower) as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                data = os.read(leader, 1 << 16)
            except OSError:  # EIO: the other end is closed
                break
            if not data:
                break
            seen += data
        apart = process.stdout.read() if process.stdout is not None else b""
    os.close(leader)
    return seen.decode(), apart.decode()


def screen_after(seen: str) -> list[str]:
    """Interpret what a progress bar uses: carriage return, erase, cursor up."""
    lines, at = [""], 0
    for part in re.findall(r"\x1b\[\?25[lh]|\x1b\[1A|\x1b\[K|\r|\n|[^\r\n\x1b]+", seen):
        if part == "\n":
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif part == "\x1b[1A":
            at -= 1
        elif part == "\x1b[K":
            lines[at] = ""  # only ever at the beginning of a line
        elif part[0] not in "\r\x1b":
            lines[at] = part + lines[at][len(part) :]
    return [line for line in lines if line]


def test_progress_bar_on_a_terminal_keeps_the_findings(root: Path) -> None:
    for number in range(20):
        job(root, f"job-{number:02}", {"status": "queued"} if number % 10 else b"{")
    seen, _ = run_on_a_terminal(str(root))
    bars = re.findall(r"Checking  \[(#*)(-*)\] +(\d+)/20", seen)
    assert len(bars) > 5
    assert [int(bar[2]) for bar in bars] == sorted(int(bar[2]) for bar in bars)
    assert (bars[0][0], bars[-1][1]) == ("", "")
    screen = screen_after(seen)
    assert [line.partition(":")[0] for line in screen[:2]] == ["job-00", "job-10"]
    assert screen[2] == "20 jobs, 2 with a finding; 0 other names ignored"
    assert seen.endswith("\r\n")
    assert seen.count("\x1b[?25h") == 1, "the cursor is visible again"


def test_piped_output_has_no_progress_bar(root: Path) -> None:
    job(root, "a", b"{")
    seen, piped = run_on_a_terminal(str(root), "--json", piped=True)
    assert "Checking" in seen
    finding, summary = [json.loads(line) for line in piped.splitlines()]
    assert (finding["job"], summary["findings"]) == ("a", 1)
    assert screen_after(seen) == []
