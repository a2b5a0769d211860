from __future__ import annotations

import pytest

from jobsvc.cli.client.progress.lines import LineDisplay
from jobsvc.client.models import Progress
from tests.cli.client.progress.conftest import Clock

MIB = 1 << 20


def progress(
    received: int, *, total: int = 1000 * MIB, name: str = "title.mp4", phase: str = "receiving"
) -> Progress:
    return Progress("job-1", name, received, total, 0, 1, phase)


def test_short_download_prints_only_its_final_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with LineDisplay() as display:
        for second in range(10):
            clock.now = 1000 + second
            display.update(progress(second * 100 * MIB))
        display.update(progress(1000 * MIB, phase="done"))
        display.final("title.mp4: done")
    assert capsys.readouterr().err == "title.mp4: done\n"


def test_line_names_percent_sizes_rate_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with LineDisplay() as display:
        for second in range(11):
            clock.now = 1000 + second
            display.update(progress(second * 10 * MIB))
    assert capsys.readouterr().err == "title.mp4: 10 %, 100 of 1000 MiB, 10.0 MiB/s, 1:30 left\n"


def test_fast_download_prints_at_most_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with LineDisplay() as display:
        for step in range(500):
            clock.now = 1000 + step / 10
            display.update(progress(step * 2 * MIB))
    percents = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert percents == ["20", "40", "60", "80"]


def test_slow_download_prints_every_ten_percent_and_every_minute(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with LineDisplay() as display:
        for second in range(600):
            clock.now = 1000 + second
            display.update(progress(second * MIB // 3))
    percents = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert percents == ["0", "2", "4", "6", "8", "10", "12", "14", "16", "18"]


def test_line_says_that_nothing_arrives(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with LineDisplay() as display:
        display.update(progress(MIB))
        clock.now += 75
        display.update(progress(MIB))
    assert capsys.readouterr().err == "title.mp4: 0 %, 1.00 of 1000 MiB, no data for 1 min 15 s\n"


def test_line_says_that_files_are_verified(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with LineDisplay() as display:
        display.update(progress(1000 * MIB, phase="verifying"))
        clock.now += 11
        display.update(progress(1000 * MIB, phase="verifying"))
    assert capsys.readouterr().err == "title.mp4: 100 %, 1000 of 1000 MiB, verifying 0:11\n"


def test_line_of_several_files_counts_them(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with LineDisplay() as display:
        clock.now += 11
        display.update(Progress("job-1", "a.1001.exr", 512, 2 * MIB, 2, 1240))
    assert capsys.readouterr().err == "0 %, 512 B of 2.00 MiB, 2 of 1,240 files, 0 B/s\n"


def test_status_is_printed_when_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    with LineDisplay() as display:
        for text in ("queued", "queued", "rendering", "rendering", "completed"):
            display.status(text)
    assert capsys.readouterr().err == "queued\nrendering\ncompleted\n"


def test_names_of_the_service_send_nothing_to_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with LineDisplay() as display:
        clock.now += 11
        display.update(progress(MIB, name="\x1b]0;title\x07.mp4"))
        display.result(b"out/title.mp4")
    printed = capsys.readouterr()
    assert printed.err.startswith(r"\x1b]0;title\x07.mp4: 0 %")
    assert printed.out == "out/title.mp4\n"


def test_warning_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    with LineDisplay() as display:
        display.warn("job-1 failed:\n\x1b[2J")
    assert capsys.readouterr().err == "jobsvc: job-1 failed: \\x1b[2J\n"


def test_rate_of_a_download_is_kept_from_job_to_job(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with LineDisplay() as display:
        for second in range(11):
            clock.now += 1
            display.update(Progress(f"job-{second}", "film.mp4", second * MIB, 100 * MIB, second, 100))
    assert capsys.readouterr().err == "9 %, 9.00 of 100 MiB, 9 of 100 files, 1.00 MiB/s, 1:31 left\n"
