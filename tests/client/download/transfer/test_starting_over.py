"""Files that are received once more while their first bytes are being hashed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from threading import Event

import pytest

from jobsvc.client import Client, Corrupt
from jobsvc.client.download.local.part_file import PartFile
from jobsvc.client.download.source import Source
from jobsvc.client.download.transfer import verification
from jobsvc.client.download.transfer.batch import Batch
from tests.clients.body_pieces import followed_by
from tests.clients.faulty_proxy import Answer, Exchange, FaultyProxy, faulty_proxy
from tests.conftest import MakeJob, Serve

FILM = os.urandom(300_000)


class HashingMeanwhile:
    """Lets the first part of a file be read for its hash after the part file was emptied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._hashing, self._emptied, self._hashed = Event(), Event(), Event()
        self._next_slice, self._restart = verification._next_slice, PartFile.restart
        monkeypatch.setattr(verification, "_next_slice", self.next_slice)
        monkeypatch.setattr(PartFile, "restart", lambda part, source: self.restart(part, source))  # noqa: PLW0108 - binds the part

    def next_slice(self, batch: Batch) -> verification._Slice | None:
        if self._hashing.is_set():
            self._hashed.set()
        piece = self._next_slice(batch)
        if not self._hashing.is_set():
            self._hashing.set()
            self._emptied.wait(10)
        return piece

    def restart(self, part: PartFile, source: Source) -> None:
        self._hashing.wait(10)
        self._restart(part, source)
        self._emptied.set()
        self._hashed.wait(1)


async def one_byte_more(exchange: Exchange) -> Answer:
    """Send the file with a byte behind it and no length."""
    answer = await exchange.forward()
    if answer.length == len(FILM):
        answer.remove("Content-Length")
        answer.body, answer.close = followed_by(answer.body, b"x"), True
    return answer


async def test_part_file_is_emptied_while_it_is_hashed(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(output=FILM)
    service = await serve()
    HashingMeanwhile(monkeypatch)
    async with faulty_proxy(FaultyProxy(service.port, always=[one_byte_more])) as proxy:
        with Client(f"http://127.0.0.1:{proxy.port}", service.token) as client, pytest.raises(Corrupt):
            await asyncio.to_thread(client.download, "job-1", tmp_path / "film.mp4")
    assert len([each for each in proxy.exchanges if each.is_file]) == 2
