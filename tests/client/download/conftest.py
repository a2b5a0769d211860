"""Fixtures of downloads: short delays, and a client of a service."""

from __future__ import annotations

import pytest

from jobsvc.client.download.transfer import verification
from jobsvc.client.protocol import retry
from jobsvc.index.digests import digest_service


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(verification, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(autouse=True)
def digests_at_once(treat_new_files_as_stable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute digests of new files without the delay of two seconds."""
    monkeypatch.setattr(digest_service, "TIMESTAMP_GRANULARITY_NS", 0)
