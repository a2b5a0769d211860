"""Short delays."""

from __future__ import annotations

import pytest

from jobsvc.client.protocol import polled_job, retry


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry almost at once."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.002)
    monkeypatch.setattr(polled_job, "MIN_INTERVAL_S", 0.0)
