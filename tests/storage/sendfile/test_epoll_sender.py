"""EpollSender on both event loops: many downloads in one thread, slow and blocked ones, errors and ends."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.sendfile import epoll_sender as module
from jobsvc.storage.sendfile import socket_sender
from jobsvc.storage.sendfile.epoll_sender import EpollSender
from jobsvc.storage.sendfile.file_sender import FileSender
from jobsvc.storage.sendfile.socket_sender import SendResult, StopReason
from jobsvc.storage.threads.background_closer import BackgroundCloser
from tests.eventually import until, wait_until

pytestmark = pytest.mark.both_loops

BODY = os.urandom(6_000_000)


class BlockingStorage(FileSender):
    """A stand-in for storage that blocks a thread: real storage cannot be released when a test wants it."""

    release: threading.Event | None = None
    started = False
    closed = 0

    def send_chunk(self, at: int, stop: int) -> SendResult:
        if self.release is not None:
            self.started = True
            self.release.wait(10)
        return super().send_chunk(at, stop)

    def close(self) -> None:
        self.closed += 1
        super().close()


class Download:
    """A file sender with fast storage, and the client at its other end."""

    def __init__(self, path: Path, start: int = 0, stop: int = len(BODY)) -> None:
        ours, self.client = socket.socketpair()
        self.client.settimeout(10)
        ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
        fd = os.open(path, os.O_RDONLY)
        status = os.fstat(fd)
        self.sender = BlockingStorage(
            OpenFile(fd, FileVersion.of(status), "film", status.st_nlink), ours.fileno(), stop - start
        )
        self.sender._average_chunk_s = 0.0
        self.start, self.stop = start, stop
        self.got = bytearray()
        ours.close()

    def send(self, epoll_sender: EpollSender) -> asyncio.Future[SendResult]:
        return epoll_sender.send(self.sender, self.start, self.stop)

    def read(self) -> None:
        while len(self.got) < self.stop - self.start and (some := self.client.recv(random.choice(PIECES))):  # noqa: S311 - no secret
            self.got += some

    def block(self) -> threading.Event:
        self.sender.release = threading.Event()
        return self.sender.release

    def close_all(self) -> None:
        if self.sender.release is not None:
            self.sender.release.set()
        self.client.close()


PIECES = (1_000, 70_000, 1_000_000)


class Downloads:
    """Starts downloads, and ends them after the test."""

    def __init__(self, folder: Path) -> None:
        self.film = folder / "film.mp4"
        self.film.write_bytes(BODY)
        self.closer = BackgroundCloser("test")
        self.epoll_sender = EpollSender(self.closer.close_later, deadline=30)
        self.made: list[Download] = []

    def add(self, start: int = 0, stop: int = len(BODY)) -> Download:
        self.made.append(Download(self.film, start, stop))
        return self.made[-1]

    def close_all(self) -> None:
        for download in self.made:
            download.close_all()
        wait_until(lambda: not self.epoll_sender._active)
        for download in self.made:
            download.sender.close()
        self.epoll_sender.close()
        self.epoll_sender.close()
        self.closer.shut_down()
        wait_until(lambda: not threads())


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobsvc-epoll-sender"]


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Downloads]:
    # On a busy machine a thread waits longer for its core, which counts as slow or blocked storage.
    monkeypatch.setattr(socket_sender, "FAST_CHUNK_S", 60.0)
    monkeypatch.setattr(module, "BLOCKED_AFTER_S", 60.0)
    downloads = Downloads(tmp_path)
    yield downloads
    downloads.close_all()


def shorten_blocks(downloads: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, a call is blocked after a moment, as in production."""
    monkeypatch.setattr(module, "BLOCKED_AFTER_S", 0.05)
    downloads.epoll_sender._check_blocked(asyncio.get_running_loop())  # the next one is due a minute later


async def has_sent(download: Download) -> None:
    """Wait until the first bytes are sent."""
    await until(lambda: download.sender.sent)


async def test_one_thread_sends_the_exact_bytes_of_all_downloads(downloads: Downloads) -> None:
    """Clients that read in pieces of all sizes, side by side; some want a part, one a single byte."""
    draw = random.Random(7)  # noqa: S311 - no secret
    places = [sorted(draw.sample(range(len(BODY) + 1), 2)) for _ in range(12)]
    made = [downloads.add(*place) for place in [*places, (5, 6), (0, len(BODY))]]
    turns = [download.send(downloads.epoll_sender) for download in made]
    await asyncio.gather(*(asyncio.to_thread(download.read) for download in made))
    assert [await result for result in turns] == [
        SendResult(download.stop - download.start, StopReason.CONTINUE) for download in made
    ]
    assert all(download.got == BODY[download.start : download.stop] for download in made)
    assert len(threads()) == 1


async def test_client_that_reads_nothing_stays_active_and_blocks_no_other(downloads: Downloads) -> None:
    full, other = downloads.add(), downloads.add()
    waits = full.send(downloads.epoll_sender)
    await has_sent(full)
    result = other.send(downloads.epoll_sender)
    await asyncio.to_thread(other.read)
    assert (await result).sent == len(BODY)
    assert (waits.done(), downloads.epoll_sender.accepts_sends, downloads.epoll_sender.stuck_threads()) == (
        False,
        True,
        0,
    )
    await asyncio.to_thread(full.read)
    assert (await waits).sent == len(BODY)


async def test_slow_download_is_detached_with_the_bytes_sent_so_far(downloads: Downloads) -> None:
    download = downloads.add()
    download.sender._average_chunk_s = 1e6
    result = await download.send(downloads.epoll_sender)
    assert (0 < result.sent < len(BODY), result.sent) == (True, download.sender.sent)
    assert download.sender.closed == 0


async def test_while_one_call_blocks_all_others_are_detached_and_none_is_accepted(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, hung = downloads.add(), downloads.add()
    waits = full.send(downloads.epoll_sender)
    await has_sent(full)
    shorten_blocks(downloads, monkeypatch)
    release = hung.block()
    hangs = hung.send(downloads.epoll_sender)
    result = await waits
    assert (result.sent, result.stop_reason, hung.sender.started) == (
        full.sender.sent,
        StopReason.CONTINUE,
        True,
    )
    assert (downloads.epoll_sender.accepts_sends, hangs.done()) == (False, False)
    hung.sender.release = None
    release.set()
    await until(lambda: downloads.epoll_sender.accepts_sends)
    await asyncio.to_thread(hung.read)
    assert (await hangs).sent == len(BODY)


async def test_blocked_download_fails_and_its_file_is_closed_after_the_call(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_blocks(downloads, monkeypatch)
    monkeypatch.setattr(downloads.epoll_sender, "_deadline", 0.1)
    monkeypatch.setattr(module, "STUCK_AFTER_S", 0.1)
    hung = downloads.add()
    release = hung.block()
    with pytest.raises(StorageUnavailable):
        await hung.send(downloads.epoll_sender)
    assert (hung.sender.closed, downloads.epoll_sender.stuck_threads()) == (0, 1)
    # A later check, while it still hangs, reports nothing more.
    await until(lambda: downloads.epoll_sender._check_scheduled)
    downloads.epoll_sender._check_blocked(asyncio.get_running_loop())
    hung.sender.abort()
    release.set()
    await until(lambda: hung.sender.closed)


async def test_canceled_download_is_detached_when_it_is_aborted(downloads: Downloads) -> None:
    download = downloads.add()
    result = download.send(downloads.epoll_sender)
    await has_sent(download)
    result.cancel()
    download.sender.abort()
    await until(lambda: download.sender.closed)
    assert not downloads.epoll_sender._active


async def test_canceled_download_that_is_detached_for_another_is_closed(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, hung = downloads.add(), downloads.add()
    result = left.send(downloads.epoll_sender)
    await has_sent(left)
    result.cancel()
    shorten_blocks(downloads, monkeypatch)
    release = hung.block()
    hung.send(downloads.epoll_sender)
    await until(lambda: left.sender.closed)
    release.set()


async def test_unexpected_error_reaches_its_download_and_ends_no_other(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty, other = downloads.add(), downloads.add(0, 1000)

    def fail(*_: int) -> SendResult:
        raise ZeroDivisionError

    monkeypatch.setattr(faulty.sender, "send_chunk", fail)
    with pytest.raises(ZeroDivisionError):
        await faulty.send(downloads.epoll_sender)
    assert (await other.send(downloads.epoll_sender)).sent == 1000


async def test_early_end_is_reported(downloads: Downloads) -> None:
    gone, changed = downloads.add(), downloads.add(len(BODY) - 1000)
    gone.client.close()
    assert (await gone.send(downloads.epoll_sender)).stop_reason is StopReason.DISCONNECTED
    os.truncate(downloads.film, 100)
    assert await changed.send(downloads.epoll_sender) == SendResult(0, StopReason.FILE_CHANGED)


async def test_thread_that_cannot_start_is_started_by_the_next_download(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a system that is out of threads."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    first, second = downloads.add(0, 1000), downloads.add(0, 1000)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        waits = first.send(downloads.epoll_sender)
    result = second.send(downloads.epoll_sender)
    assert ((await waits).sent, (await result).sent) == (1000, 1000)


async def test_closed_sender_accepts_nothing_and_finishes_active_downloads(
    downloads: Downloads,
) -> None:
    download = downloads.add()
    result = download.send(downloads.epoll_sender)
    await has_sent(download)
    downloads.epoll_sender.close()
    assert not downloads.epoll_sender.accepts_sends
    await asyncio.to_thread(download.read)
    assert (await result).sent == len(BODY)
    await until(lambda: not threads())


def test_active_downloads_are_closed_when_the_loop_ends(downloads: Downloads) -> None:
    download = downloads.add()

    async def start_and_return() -> None:
        download.send(downloads.epoll_sender)
        await has_sent(download)

    asyncio.run(start_and_return())
    download.read()
    wait_until(lambda: download.sender.closed)
    assert download.got == BODY
