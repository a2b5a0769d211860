from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from jobsvc.cli.client.progress.bar import BarDisplay, bar_line
from jobsvc.cli.client.progress.state import DownloadState
from jobsvc.client.models import Progress
from tests.cli.client.progress.conftest import Clock

MIB = 1 << 20


def state_of(clock: Clock, *, name: str = "title.mp4", files: int = 1) -> DownloadState:
    """Return the state of a download that is at 40 % after 4 s."""
    state = DownloadState()
    for second in range(5):
        clock.now += 1
        state.update(Progress("job-1", name, second * 100 * MIB, 1000 * MIB, second, files))
    return state


@pytest.mark.parametrize("name", ["title.mp4", "beauty/" * 30 + "beauty.1001.exr", "映画" * 60])
@pytest.mark.parametrize("files", [1, 12_400])
def test_line_fits_every_terminal(clock: Clock, name: str, files: int) -> None:
    state = state_of(clock, name=name, files=files)
    for width in range(1, 240):
        assert bar_line(state, width).cell_len <= width
        assert bar_line(state, width, ascii_only=True).cell_len <= width


def test_line_shows_name_bar_sizes_rate_and_time_left(clock: Clock) -> None:
    assert bar_line(state_of(clock), 79).plain == (
        "title.mp4  ━━━━━━━━─────────────   40 %  400 of 1000 MiB   100 MiB/s  0:06 left"
    )


def test_line_of_several_files_counts_them(clock: Clock) -> None:
    text = bar_line(state_of(clock, name="beauty/beauty.1005.exr", files=240), 120).plain
    assert "4 of 240 files" in text
    assert text.startswith(("…", "beauty/beauty.1005.exr"))


def test_narrow_terminal_shows_the_end_of_the_name(clock: Clock) -> None:
    assert bar_line(state_of(clock, name="beauty/beauty.1005.exr"), 40).plain.startswith("…")
    assert bar_line(state_of(clock), 5).plain == " 40 %"


def test_other_encodings_get_ascii(clock: Clock) -> None:
    assert bar_line(state_of(clock, name="ü.mp4"), 100, ascii_only=True).plain.isascii()


def test_verification_and_silence_are_shown_instead_of_the_rate(clock: Clock) -> None:
    state = state_of(clock)
    clock.now += 20
    assert "no data for 20 s" in bar_line(state, 100).plain
    assert "left" not in bar_line(state, 100).plain
    state.update(Progress("job-1", "title.mp4", 1000 * MIB, 1000 * MIB, 0, 1, "verifying"))
    assert "verifying 0:00" in bar_line(state, 100).plain


def test_empty_download_has_a_line() -> None:
    assert bar_line(DownloadState(), 60).plain.strip()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return a function that returns what was written to the terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    return lambda: capsys.readouterr().err


def drawn(written: str) -> list[str]:
    """Return what each drawing left in the line, without styles."""
    return re.sub(r"\x1b\[(\?25[lh]|[\d;]*m)", "", written).split("\r\x1b[2K")


def test_bar_is_drawn_in_place_and_replaced_by_a_final_line(
    clock: Clock, terminal: Callable[[], str]
) -> None:
    with BarDisplay() as display:
        for step in range(11):
            clock.now += 1
            display.update(
                Progress("job-1", "title.mp4", step, 10, 0, 1, "done" if step == 10 else "receiving")
            )
        display.final("title.mp4: done")
    lines = drawn(terminal())
    percents = [match[1] for text in lines if (match := re.search(r"(\d+) %", text))]
    assert percents == [str(10 * step) for step in range(11)]
    assert lines[-1] == "title.mp4: done\n"
    assert "\n" not in "".join(lines[:-1])


def test_cursor_is_shown_again_after_an_error(terminal: Callable[[], str]) -> None:
    def interrupted() -> None:
        with BarDisplay() as display:
            display.update(Progress("job-1", "title.mp4", 1, 10, 0, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    written = terminal()
    assert written.startswith("\x1b[?25l")
    assert written.endswith("\r\x1b[2K\x1b[?25h")


def test_bar_is_drawn_ten_times_a_second_at_most(clock: Clock, terminal: Callable[[], str]) -> None:
    with BarDisplay() as display:
        for _ in range(1000):
            clock.now += 0.001
            display.update(Progress("job-1", "title.mp4", 1, 10, 0, 1))
    assert len(drawn(terminal())) <= 12


@pytest.mark.parametrize("same", [True, False])
def test_result_on_the_same_terminal_removes_the_bar(
    terminal: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    same: bool,  # noqa: FBT001 - a parameter
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: same)
    with BarDisplay() as display:
        display.status("job-1: rendering, 10 %")
        display.status("job-1: rendering, 10 %")
        display.update(Progress("job-1", "title.mp4", 1, 10, 0, 1))
        display.result(b"title.mp4")
        assert (drawn(terminal())[-1] == "") is same


def test_warning_removes_the_bar(terminal: Callable[[], str]) -> None:
    with BarDisplay() as display:
        display.update(Progress("job-1", "title.mp4", 1, 10, 0, 1))
        display.warn("job-1 failed")
        assert drawn(terminal())[-1] == "jobsvc: job-1 failed\n"


def test_no_color_leaves_out_colours(
    clock: Clock, terminal: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with BarDisplay() as display:
        display.update(Progress("job-1", "title.mp4", 5, 10, 0, 1))
    written = terminal()
    assert not re.search(r"\x1b\[[\d;]*(3\d|9\d)[\d;]*m", written)
    assert "50 %" in written


def test_wide_characters_count_as_two_cells(clock: Clock) -> None:
    assert cell_len(bar_line(state_of(clock, name="映画" * 60), 60).plain) == 59
