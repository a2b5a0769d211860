"""Virtual time for operations."""

from __future__ import annotations

import pytest

from jobsvc.client.protocol import event_source, long_lived, polled_job, retry, tracked_jobs
from tests.client.scripted_service import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of all operations."""
    fake = Clock()
    for module in (event_source, long_lived, polled_job, retry, tracked_jobs):
        monkeypatch.setattr(module, "monotonic", fake)
    return fake
