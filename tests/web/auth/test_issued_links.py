"""The record of links while the service ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp import web

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.link_record import IssuedLink
from jobsvc.storage.state.links_file import LinksFile, load_links
from jobsvc.web.auth import issued_links
from jobsvc.web.auth.issued_links import IssuedLinks
from tests.eventually import until

LINK = IssuedLink(
    "3b688abc72943b81", "job-1", "film.mp4", "80d747a848db", "anna", 1_800_000_000.0, 4_000_000_000.0
)


async def test_link_that_is_being_written_when_the_service_ends_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued_links, "SAVE_INTERVAL_S", 0.01)
    writing, may_write = threading.Event(), threading.Event()

    class SlowFile(LinksFile):
        def append(self, links: Sequence[IssuedLink], now: float) -> None:
            if links:
                writing.set()
                assert may_write.wait(15)
            super().append(links, now)

    with closing(StorageExecutor()) as disk:
        record = IssuedLinks(SlowFile(tmp_path / "links.jsonl"), disk, lambda: None)
        context = record.cleanup_ctx(web.Application())
        await anext(context)
        record.record(LINK)
        await until(writing.is_set)
        threading.Timer(0.2, may_write.set).start()
        await anext(context, None)
    assert load_links(tmp_path / "links.jsonl") == [LINK]
