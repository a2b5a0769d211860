"""Virtual time for operations, and short delays for those in real time."""

from __future__ import annotations

import pytest

from jobsvc.client.protocol import event_source, long_lived, polled_job, retry
from tests.client.protocol.scripted_service import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of all operations."""
    fake = Clock()
    for module in (event_source, long_lived, polled_job, retry):
        monkeypatch.setattr(module, "monotonic", fake)
    return fake


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry almost at once."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.002)
    monkeypatch.setattr(polled_job, "MIN_INTERVAL_S", 0.0)
