from __future__ import annotations

import subprocess
import sys

import pytest

from jobsvc.cli.client.progress.bar import BarDisplay
from jobsvc.cli.client.progress.display import SilentDisplay, open_display
from jobsvc.cli.client.progress.lines import LineDisplay
from jobsvc.client.models import Progress


@pytest.mark.parametrize(
    ("choice", "terminal", "term", "kind"),
    [
        (None, True, "xterm", BarDisplay),
        ("", True, "xterm", BarDisplay),
        ("auto", True, "dumb", LineDisplay),
        ("auto", False, "xterm", LineDisplay),
        ("always", False, "xterm", BarDisplay),
        ("never", True, "xterm", SilentDisplay),
    ],
)
def test_display_follows_variable_and_terminal(
    monkeypatch: pytest.MonkeyPatch,
    choice: str | None,
    terminal: bool,  # noqa: FBT001 - a parameter
    term: str,
    kind: type,
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("JOBSVC_PROGRESS", raising=False)
    if choice is not None:
        monkeypatch.setenv("JOBSVC_PROGRESS", choice)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert type(open_display()) is kind
    assert type(open_display(quiet=True)) is SilentDisplay


def test_silent_display_prints_only_results_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with SilentDisplay() as display:
        display.update(Progress("job-1", "title.mp4", 1, 10, 0, 1))
        display.status("queued")
        display.result(b"title.mp4")
        display.final("done")
        display.warn("job-1 failed")
    assert tuple(capsys.readouterr()) == ("title.mp4\n", "jobsvc: job-1 failed\n")


def test_rich_is_imported_for_the_bar_alone() -> None:
    program = (
        "import sys; from jobsvc.cli.client.progress.display import open_display\n"
        "open_display()\n"
        "sys.exit('rich' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 0
