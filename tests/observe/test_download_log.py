from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from jobsvc.observe.download_log import DownloadLog, DownloadRecord, Outcome

ROOT = Path(__file__).parents[2]


class Losses:
    """Counts, as the metric does."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def record(number: int = 0, file: str = "film.mp4") -> DownloadRecord:
    return DownloadRecord(
        when=1_700_000_000.25,
        request_id=f"r{number}",
        token_id="t1",  # noqa: S106 - an id, no secret
        owner="ada",
        job="job-1",
        file=file,
        etag='"abc"',
        range="bytes 0-9/100",
        bytes_sent=7,
        bytes_promised=10,
        seconds=1.23456,
        outcome=Outcome.CLIENT_GONE,
    )


def lines(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def until(true: Callable[[], bool], deadline: float = 20) -> None:
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, "not in time"
        os.sched_yield()


@pytest.fixture
def hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that responds only when released: a local file system cannot be made to hang without FUSE."""
    answers, real = threading.Event(), os.open

    def slow(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("downloads.jsonl"):
            answers.wait(30)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", slow)
    return answers


def test_download_is_one_line_with_all_fields(tmp_path: Path) -> None:
    downloads = DownloadLog(tmp_path / "downloads.jsonl", Losses(), instance="a")
    downloads.write(record())
    downloads.close()
    assert lines(tmp_path / "downloads.jsonl") == [
        {
            "when": "2023-11-14T22:13:20.250Z",
            "requestId": "r0",
            "traceId": None,
            "tokenId": "t1",
            "client": None,
            "byLink": False,
            "link": None,
            "owner": "ada",
            "job": "job-1",
            "file": "film.mp4",
            "etag": '"abc"',
            "range": "bytes 0-9/100",
            "bytesSent": 7,
            "bytesPromised": 10,
            "seconds": 1.235,
            "outcome": "client-gone",
            "instance": "a",
        }
    ]
    assert stat.S_IMODE((tmp_path / "downloads.jsonl").stat().st_mode) == 0o600


def test_file_name_that_is_not_utf_8_is_kept(tmp_path: Path) -> None:
    losses = Losses()
    downloads = DownloadLog(tmp_path / "downloads.jsonl", losses, instance="a")
    downloads.write(record(file="\udcff\n.mp4"))
    downloads.close()
    assert losses.count == 0
    (line,) = (tmp_path / "downloads.jsonl").read_text("ascii").splitlines()
    assert '"file": "\\udcff\\n.mp4"' in line


def test_outcomes_are_the_documented_ones() -> None:
    known = "complete client-gone truncated storage-error revoked too-slow shutdown"
    assert set(Outcome) == set(known.split())


def test_rotation_loses_nothing_within_its_limits(tmp_path: Path) -> None:
    size = len(record(10).line("a")) + 1
    downloads = DownloadLog(
        tmp_path / "downloads.jsonl", Losses(), max_file_bytes=3 * size, old_files=2, instance="a"
    )
    for number in range(10, 18):
        downloads.write(record(number))
    downloads.close()
    kept = [
        [line["requestId"] for line in lines(tmp_path / name)]
        for name in ("downloads.jsonl.2", "downloads.jsonl.1", "downloads.jsonl")
    ]
    assert kept == [["r10", "r11", "r12"], ["r13", "r14", "r15"], ["r16", "r17"]]


def test_records_of_many_threads_are_complete_lines(tmp_path: Path) -> None:
    losses = Losses()
    downloads = DownloadLog(tmp_path / "downloads.jsonl", losses, instance="a")

    def end_downloads(first: int) -> None:
        for number in range(first, first + 200):
            downloads.write(record(number))

    threads = [threading.Thread(target=end_downloads, args=(first,)) for first in (0, 200, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    downloads.close()
    written = {line["requestId"] for line in lines(tmp_path / "downloads.jsonl")}
    assert written == {f"r{number}" for number in range(600)}
    assert losses.count == 0


def test_failing_disk_is_counted_each_time_and_logged_once(tmp_path: Path) -> None:
    losses, state = Losses(), tmp_path / "state"
    with capture_logs() as logged:
        downloads = DownloadLog(state / "downloads.jsonl", losses, instance="a")
        for number in range(3):
            downloads.write(record(number))
        until(lambda: losses.count == 3)
        state.mkdir()
        downloads.write(record(3))
        until(lambda: len(logged) == 2)
        downloads.write(record(4))
        downloads.close()
    assert [line["requestId"] for line in lines(state / "downloads.jsonl")] == ["r3", "r4"]
    assert [(line["log_level"], line["event"]) for line in logged] == [
        ("error", "download-log-lost-lines"),
        ("info", "download-log-recovered"),
    ]
    assert "No such file or directory" in logged[0]["reason"]


def test_queue_overflow_is_logged_once_and_again_when_it_ends(tmp_path: Path, hung: threading.Event) -> None:
    losses = Losses()
    logged: list[tuple[str, int]] = []

    def keep(_: object, level: str, __: object) -> str:
        file = tmp_path / "downloads.jsonl"
        logged.append((level, len(lines(file)) if file.exists() else 0))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    try:
        downloads = DownloadLog(tmp_path / "downloads.jsonl", losses, max_queued=5, instance="a")
        for number in range(20):
            downloads.write(record(number))
        hung.set()
        until(lambda: len(logged) == 2)
        downloads.close()
    finally:
        structlog.reset_defaults()
    assert logged == [("error", 0), ("info", 20 - losses.count)]


def test_record_after_close_is_counted_as_lost(tmp_path: Path) -> None:
    losses = Losses()
    downloads = DownloadLog(tmp_path / "downloads.jsonl", losses, instance="a")
    downloads.close()
    downloads.close()
    downloads.write(record())
    assert losses.count == 1
    assert not (tmp_path / "downloads.jsonl").exists()


@pytest.mark.alone
def test_hanging_disk_delays_neither_downloads_nor_shutdown(tmp_path: Path, hung: threading.Event) -> None:
    losses = Losses()
    downloads = DownloadLog(tmp_path / "downloads.jsonl", losses, max_queued=5, instance="a")
    begin = time.monotonic()
    for number in range(8):
        downloads.write(record(number))
    assert time.monotonic() - begin < 0.5
    assert losses.count == 3
    downloads.close(0.2)
    assert 0.2 <= time.monotonic() - begin < 1.5
    assert losses.count == 3 + 5
    hung.set()
    downloads._thread.join(10)
    assert not downloads._thread.is_alive()


def test_close_waits_for_a_slow_disk_within_its_deadline(tmp_path: Path, hung: threading.Event) -> None:
    losses = Losses()
    downloads = DownloadLog(tmp_path / "downloads.jsonl", losses, instance="a")
    downloads.write(record())
    threading.Timer(0.1, hung.set).start()
    downloads.close(20)
    assert (len(lines(tmp_path / "downloads.jsonl")), losses.count) == (1, 0)


@pytest.mark.alone
def test_process_ends_although_the_log_disk_hangs(tmp_path: Path) -> None:
    """A FIFO without a reader fills up; the write to it never returns."""
    os.mkfifo(tmp_path / "downloads.jsonl")
    program = (
        "import time; from pathlib import Path\n"
        "from jobsvc.observe.download_log import DownloadLog, DownloadRecord, Outcome\n"
        f"log = DownloadLog(Path({str(tmp_path)!r}) / 'downloads.jsonl', lambda: None, instance='a')\n"
        "for n in range(300):\n"
        "  log.write(DownloadRecord(0, 'r', 't', 'o', 'j', 'x' * 999, '', '', 1, 1, 1, Outcome.COMPLETE))\n"
        "begin = time.monotonic(); log.close(0.3); assert time.monotonic() - begin < 2\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=20)
