from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobsvc.cli.client.progress import bar, lines, state


class Clock:
    """The time that the displays see."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (bar, lines, state):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock
