"""Ferry, on both loops: whose bytes go with those of others, who goes ashore, what one costs that hangs."""

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
from jobsvc.storage.sendfile.epoll_sender import EpollSender
from jobsvc.storage.sendfile.file_sender import FileSender, SendResult, StopReason
from jobsvc.storage.threads.background_closer import BackgroundCloser
from tests.waiting import until, wait_until

pytestmark = pytest.mark.both_loops

BODY = os.urandom(6_000_000)


class Slowly(FileSender):
    """A stand-in for storage that keeps a thread: real ones can't be let go just when a test wants it."""

    gate: threading.Event | None = None
    begun = False
    closed = 0

    def send_chunk(self, at: int, stop: int) -> SendResult:
        if self.gate is not None:
            self.begun = True
            self.gate.wait(10)
        return super().send_chunk(at, stop)

    def close(self) -> None:
        self.closed += 1
        super().close()


class Passage:
    """A download: a conduit whose storage has proved quick, and the client at its other end."""

    def __init__(self, path: Path, start: int = 0, stop: int = len(BODY)) -> None:
        ours, self.client = socket.socketpair()
        self.client.settimeout(10)
        ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
        fd = os.open(path, os.O_RDONLY)
        status = os.fstat(fd)
        self.conduit = Slowly(
            OpenFile(fd, FileVersion.of(status), "film", status.st_nlink), ours.fileno(), stop - start
        )
        self.conduit._average_chunk_s = 0.0
        self.start, self.stop = start, stop
        self.got = bytearray()
        ours.close()

    def go(self, ferry: EpollSender) -> asyncio.Future[SendResult]:
        return ferry.send(self.conduit, self.start, self.stop)

    def read(self) -> None:
        while len(self.got) < self.stop - self.start and (some := self.client.recv(random.choice(PIECES))):  # noqa: S311 - no secret
            self.got += some

    def hang(self) -> threading.Event:
        self.conduit.gate = threading.Event()
        return self.conduit.gate

    def leave(self) -> None:
        if self.conduit.gate is not None:
            self.conduit.gate.set()
        self.client.close()


PIECES = (1_000, 70_000, 1_000_000)


class Harbour:
    """Makes passages, and clears up after them."""

    def __init__(self, folder: Path) -> None:
        self.film = folder / "film.mp4"
        self.film.write_bytes(BODY)
        self.closer = BackgroundCloser("test")
        self.ferry = EpollSender(self.closer.close_later, deadline=30)
        self.passages: list[Passage] = []

    def passage(self, start: int = 0, stop: int = len(BODY)) -> Passage:
        self.passages.append(Passage(self.film, start, stop))
        return self.passages[-1]

    def leave(self) -> None:
        for passage in self.passages:
            passage.leave()
        wait_until(lambda: not self.ferry._active)
        for passage in self.passages:
            passage.conduit.close()
        self.ferry.close()
        self.ferry.close()
        self.closer.shut_down()
        wait_until(lambda: not threads())


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobsvc-epoll-sender"]


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    harbour = Harbour(tmp_path)
    yield harbour
    harbour.leave()


async def aboard(passage: Passage) -> None:
    """Wait until its client has no room any more."""
    await until(lambda: passage.conduit.sent)


async def test_the_bytes_of_all_arrive_as_they_are_by_one_thread(harbour: Harbour) -> None:
    """Clients that read in pieces of all sizes, side by side; some want a part, one a single byte."""
    draw = random.Random(7)  # noqa: S311 - no secret
    places = [sorted(draw.sample(range(len(BODY) + 1), 2)) for _ in range(12)]
    passages = [harbour.passage(*place) for place in [*places, (5, 6), (0, len(BODY))]]
    turns = [passage.go(harbour.ferry) for passage in passages]
    await asyncio.gather(*(asyncio.to_thread(passage.read) for passage in passages))
    assert [await turn for turn in turns] == [
        SendResult(passage.stop - passage.start, StopReason.SLICE_USED) for passage in passages
    ]
    assert all(passage.got == BODY[passage.start : passage.stop] for passage in passages)
    assert len(threads()) == 1


async def test_a_client_that_reads_nothing_stays_on_board_and_holds_nobody_up(harbour: Harbour) -> None:
    full, other = harbour.passage(), harbour.passage()
    waits = full.go(harbour.ferry)
    await aboard(full)
    turn = other.go(harbour.ferry)
    await asyncio.to_thread(other.read)
    assert (await turn).sent == len(BODY)
    assert (waits.done(), harbour.ferry.is_running, harbour.ferry.stuck_threads()) == (False, True, 0)
    await asyncio.to_thread(full.read)
    assert (await waits).sent == len(BODY)


async def test_who_proves_slow_goes_ashore_with_what_was_sent(harbour: Harbour) -> None:
    passage = harbour.passage()
    passage.conduit._average_chunk_s = 1.0
    turn = await passage.go(harbour.ferry)
    assert (0 < turn.sent < len(BODY), turn.sent) == (True, passage.conduit.sent)
    assert passage.conduit.closed == 0


async def test_while_one_hangs_all_others_go_ashore_and_nobody_comes_on_board(harbour: Harbour) -> None:
    full, hung = harbour.passage(), harbour.passage()
    waits = full.go(harbour.ferry)
    await aboard(full)
    gate = hung.hang()
    hangs = hung.go(harbour.ferry)
    turn = await waits
    assert (turn.sent, turn.stop_reason, hung.conduit.begun) == (
        full.conduit.sent,
        StopReason.SLICE_USED,
        True,
    )
    assert (harbour.ferry.is_running, hangs.done()) == (False, False)
    hung.conduit.gate = None
    gate.set()
    await until(lambda: harbour.ferry.is_running)
    await asyncio.to_thread(hung.read)
    assert (await hangs).sent == len(BODY)


async def test_who_hangs_for_long_is_told_and_what_it_lent_is_closed_once_the_call_is_over(
    harbour: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harbour.ferry, "_deadline", 0.1)
    monkeypatch.setattr(module, "STUCK_AFTER_S", 0.1)
    hung = harbour.passage()
    gate = hung.hang()
    with pytest.raises(StorageUnavailable):
        await hung.go(harbour.ferry)
    assert (hung.conduit.closed, harbour.ferry.stuck_threads()) == (0, 1)
    # A later look, while it hangs on, has nothing more to tell.
    await until(lambda: harbour.ferry._watched)
    harbour.ferry._check_blocked(asyncio.get_running_loop())
    hung.conduit.abort()
    gate.set()
    await until(lambda: hung.conduit.closed)


async def test_who_is_not_waited_for_any_more_goes_ashore_when_he_is_cut_off(harbour: Harbour) -> None:
    passage = harbour.passage()
    turn = passage.go(harbour.ferry)
    await aboard(passage)
    turn.cancel()
    passage.conduit.abort()
    await until(lambda: passage.conduit.closed)
    assert not harbour.ferry._active


async def test_who_left_and_is_put_ashore_for_another_is_closed_too(harbour: Harbour) -> None:
    left, hung = harbour.passage(), harbour.passage()
    turn = left.go(harbour.ferry)
    await aboard(left)
    turn.cancel()
    gate = hung.hang()
    hung.go(harbour.ferry)
    await until(lambda: left.conduit.closed)
    gate.set()


async def test_a_fault_of_ours_is_told_to_who_waits_and_ends_nothing_else(
    harbour: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty, other = harbour.passage(), harbour.passage(0, 1000)

    def fail(*_: int) -> SendResult:
        raise ZeroDivisionError

    monkeypatch.setattr(faulty.conduit, "send_chunk", fail)
    with pytest.raises(ZeroDivisionError):
        await faulty.go(harbour.ferry)
    assert (await other.go(harbour.ferry)).sent == 1000


async def test_an_early_end_is_told(harbour: Harbour) -> None:
    gone, changed = harbour.passage(), harbour.passage(len(BODY) - 1000)
    gone.client.close()
    assert (await gone.go(harbour.ferry)).stop_reason is StopReason.DISCONNECTED
    os.truncate(harbour.film, 100)
    assert await changed.go(harbour.ferry) == SendResult(0, StopReason.FILE_CHANGED)


async def test_where_there_is_no_room_for_a_thread_the_next_passenger_begins_it(
    harbour: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a system that is out of threads."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    first, second = harbour.passage(0, 1000), harbour.passage(0, 1000)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        waits = first.go(harbour.ferry)
    turn = second.go(harbour.ferry)
    assert ((await waits).sent, (await turn).sent) == (1000, 1000)


async def test_a_ferry_that_was_closed_takes_nobody_on_and_sees_to_who_is_aboard(harbour: Harbour) -> None:
    passage = harbour.passage()
    turn = passage.go(harbour.ferry)
    await aboard(passage)
    harbour.ferry.close()
    assert not harbour.ferry.is_running
    await asyncio.to_thread(passage.read)
    assert (await turn).sent == len(BODY)
    await until(lambda: not threads())


def test_what_is_aboard_when_the_loop_ends_is_closed(harbour: Harbour) -> None:
    passage = harbour.passage()

    async def leave() -> None:
        passage.go(harbour.ferry)
        await aboard(passage)

    asyncio.run(leave())
    passage.read()
    wait_until(lambda: passage.conduit.closed)
    assert passage.got == BODY
