"""Fixtures of several test modules of storage."""

from __future__ import annotations

import pytest

from jobsvc.storage.sendfile import socket_queues


@pytest.fixture(params=["by pages", "by copies"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways of sending a large file: sendfile(2), or read(2) and write(2)."""
    bound = 0 if request.param == "by pages" else 1 << 40
    monkeypatch.setattr(socket_queues, "max_buffered_bytes", lambda: bound)
