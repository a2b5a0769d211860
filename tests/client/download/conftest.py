"""Fixtures of downloads: short delays, and a client of a service."""

from __future__ import annotations

import pytest

from jobsvc.client.download import source
from jobsvc.client.download.local import part_file
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


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share files of 100 kB between connections, in segments of 50 kB; write the record every 10 kB."""
    monkeypatch.setattr(source, "PARALLEL_SIZE", 100_000)
    monkeypatch.setattr(source, "MAX_SEGMENT", 50_000)
    monkeypatch.setattr(source, "CHUNK", 10_000)
    monkeypatch.setattr(part_file, "CHUNK", 10_000)
