"""Fixtures for the writer of job directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobsvc import farm
from jobsvc.domain.status_record import parse_record

Read = Callable[[], dict[str, Any]]


@pytest.fixture
def read(jobs_root: Path) -> Read:
    """Return a function that reads the record of the job `title`, which has to be valid."""

    def read() -> dict[str, Any]:
        record = json.loads((jobs_root / "title" / "status.json").read_bytes())
        parse_record("title", record, 0)
        return dict(record)

    return read


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten how long the writer waits for outputs to be stable and for failing storage."""
    for name in ("STABLE_S", "RETRY_S"):
        monkeypatch.setattr(farm, name, 0.02)
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 15)


@pytest.fixture
def outputs_stay_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten how long the writer waits for outputs: there will be none."""
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 0.1)
