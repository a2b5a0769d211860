"""The bytes on their way from a file to a socket, and what happens to the file meanwhile."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.storage import conduit as module
from jobsvc.storage.conduit import Conduit, Halt, changed, read_cached
from jobsvc.storage.reader import Identity, OpenFile

BODY = os.urandom(3_000_000)


def opened(path: Path) -> OpenFile:
    fd = os.open(path, os.O_RDONLY)
    status = os.fstat(fd)
    return OpenFile(fd, Identity.of(status), path.name, status.st_nlink)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(BODY)
    return path


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
    yield ours, theirs
    ours.close()
    theirs.close()


def send_all(conduit: Conduit, start: int, stop: int) -> Halt:
    while start < stop:
        turn = conduit.send(start, stop)
        start += turn.sent
        if turn.halt not in {Halt.TURN_OVER, Halt.CLIENT_FULL}:
            return turn.halt
    return Halt.TURN_OVER


@pytest.mark.parametrize(
    ("start", "stop"), [(0, len(BODY)), (1, 2), (70_001, 2_999_999), (5, 5), (0, 16_384)]
)
def test_exactly_the_bytes_asked_for_arrive(
    film: Path, pair: tuple[socket.socket, socket.socket], start: int, stop: int
) -> None:
    ours, theirs = pair
    got = bytearray()

    def read() -> None:
        while len(got) < stop - start:
            got.extend(theirs.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    conduit = Conduit(opened(film), ours.fileno())
    assert send_all(conduit, start, stop) is Halt.TURN_OVER
    reader.join(10)
    conduit.close()
    assert bytes(got) == BODY[start:stop]


def test_a_client_that_takes_nothing_ends_the_turn(
    film: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    conduit = Conduit(opened(film), pair[0].fileno())
    first = conduit.send(0, len(BODY))
    assert (first.halt, 0 < first.sent < len(BODY)) == (Halt.CLIENT_FULL, True)
    again = conduit.send(first.sent, len(BODY))
    assert (again.halt, again.sent) == (Halt.CLIENT_FULL, 0)
    conduit.close()
    conduit.close()


def test_a_client_that_left_is_told_from_a_fault(
    film: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].close()
    conduit = Conduit(opened(film), pair[0].fileno())
    assert conduit.send(0, len(BODY)).halt is Halt.CLIENT_GONE
    conduit.close()


def test_a_fault_of_the_storage_is_handed_on(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Reading a folder fails as a broken disk does: with an OSError that no client is to blame for."""
    folder = os.open(tmp_path, os.O_RDONLY)
    status = os.fstat(folder)
    conduit = Conduit(OpenFile(folder, Identity.of(status), "x", status.st_nlink), pair[0].fileno())
    turn = conduit.send(0, 100)
    assert (turn.halt, isinstance(turn.fault, IsADirectoryError)) == (Halt.FAULT, True)
    conduit.close()


def shorten(path: Path) -> None:
    os.truncate(path, 100)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(1, 1))


def overwrite_and_keep_the_time(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("harm", [shorten, overwrite, overwrite_and_keep_the_time])
def test_a_file_that_was_harmed_is_never_sent_to_its_end(
    film: Path,
    pair: tuple[socket.socket, socket.socket],
    harm: object,
) -> None:
    file = opened(film)
    assert not changed(file)
    assert callable(harm)
    harm(film)
    conduit = Conduit(file, pair[0].fileno())
    turn = conduit.send(len(BODY) - 1000, len(BODY))
    assert (turn.sent, turn.halt) == (0, Halt.CHANGED)
    assert conduit.send(len(BODY) - 40_000, len(BODY)).halt is Halt.CHANGED
    conduit.close()


def test_a_file_that_is_replaced_or_removed_goes_out_as_it_was(film: Path) -> None:
    file = opened(film)
    film.with_name("new").write_bytes(b"new")
    film.with_name("new").replace(film)
    assert not changed(file)
    assert read_cached(file, 10, 20) == BODY[10:20]
    file.close()


def test_a_few_bytes_are_read_at_once_where_they_are_in_memory_and_right(film: Path) -> None:
    file = opened(film)
    assert read_cached(file, 5, 65_000) == BODY[5:65_000]
    assert read_cached(file, len(BODY) - 5, len(BODY) + 5) is None
    overwrite(film)
    assert read_cached(file, 5, 65_000) is None
    file.close()


def test_storage_that_cannot_say_what_is_in_memory_is_read_the_long_way() -> None:
    ours, theirs = os.pipe()
    status = os.fstat(ours)
    assert read_cached(OpenFile(ours, Identity.of(status), "x", 1), 0, 1) is None
    os.close(ours)
    os.close(theirs)


def test_slow_storage_is_asked_for_less_at_a_time(
    film: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the clock's verdict: every call counts as slow."""
    monkeypatch.setattr(module, "QUICK", -1.0)
    conduit = Conduit(opened(film), pair[0].fileno())
    conduit.send(0, len(BODY))
    assert module.FIRST_CHUNK // 4 <= conduit._chunk < module.FIRST_CHUNK
    assert os.fstat(conduit.socket_fd) == os.fstat(pair[0].fileno())
    conduit.close()
