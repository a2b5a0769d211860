"""Sending the bytes of a file to a socket, and changes of the file meanwhile."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.nonblocking.cached_read import ReadBuffer, read_cached
from jobsvc.storage.sendfile import file_sender as module
from jobsvc.storage.sendfile import socket_queues, socket_sender
from jobsvc.storage.sendfile.file_sender import FileSender, is_changed
from jobsvc.storage.sendfile.socket_queues import max_buffered_bytes
from jobsvc.storage.sendfile.socket_sender import RESUMABLE, StopReason
from tests.eventually import wait_until

BODY = os.urandom(3_000_000)
SOME = 900_000


def opened(path: Path) -> OpenFile:
    fd = os.open(path, os.O_RDONLY)
    status = os.fstat(fd)
    return OpenFile(fd, FileVersion.of(status), path.name, status.st_nlink)


both_ways = pytest.mark.usefixtures("way")


@pytest.fixture(autouse=True)
def long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice ends because of what a test does, and not because the machine is busy."""
    monkeypatch.setattr(socket_sender, "SLICE_S", 60.0)


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


def send_all(sender: FileSender, start: int, stop: int) -> StopReason:
    while start < stop:
        result = sender.send_slice(start, stop)
        start += result.sent
        if result.stop_reason not in RESUMABLE:
            return result.stop_reason
    return StopReason.CONTINUE


@both_ways
@pytest.mark.parametrize(
    ("start", "stop"), [(0, len(BODY)), (1, 2), (70_001, 2_999_999), (5, 5), (0, 16_384)]
)
def test_exactly_the_requested_bytes_arrive(
    film: Path, pair: tuple[socket.socket, socket.socket], start: int, stop: int
) -> None:
    ours, theirs = pair
    received = bytearray()

    def read() -> None:
        while len(received) < stop - start:
            received.extend(theirs.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    sender = FileSender(opened(film), ours.fileno(), stop - start)
    assert send_all(sender, start, stop) is StopReason.CONTINUE
    reader.join(10)
    sender.close()
    assert bytes(received) == BODY[start:stop]


@both_ways
def test_client_that_reads_nothing_ends_the_slice(
    film: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    sender = FileSender(opened(film), pair[0].fileno(), len(BODY))
    first = sender.send_slice(0, len(BODY))
    assert (first.stop_reason, 0 < first.sent < len(BODY)) == (StopReason.WOULD_BLOCK, True)
    again = sender.send_slice(first.sent, len(BODY))
    assert (again.stop_reason, again.sent) == (StopReason.WOULD_BLOCK, 0)
    sender.close()
    sender.close()


def test_unacknowledged_bytes_are_counted(
    film: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = FileSender(opened(film), pair[0].fileno(), len(BODY))
    sent = sender.send_slice(0, len(BODY)).sent
    assert 0 <= sender.acked_bytes() < sent
    monkeypatch.setattr(sender.queues, "unacked", fails)
    assert sender.acked_bytes() == sent
    sender.close()


def fails() -> int:
    raise OSError


@both_ways
def test_disconnect_is_distinguished_from_an_error(
    film: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].close()
    sender = FileSender(opened(film), pair[0].fileno(), len(BODY))
    assert sender.send_slice(0, len(BODY)).stop_reason is StopReason.DISCONNECTED
    sender.close()


@both_ways
@pytest.mark.parametrize("length", [100, 1 << 30])
def test_storage_error_is_returned(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], length: int
) -> None:
    """Reading a directory fails as a broken disk does: with an OSError that the client did not cause."""
    folder = os.open(tmp_path, os.O_RDONLY)
    status = os.fstat(folder)
    file = OpenFile(folder, FileVersion.of(status), "x", status.st_nlink)
    sender = FileSender(file, pair[0].fileno(), length)
    result = sender.send_slice(0, length)
    assert (result.stop_reason, isinstance(result.error, IsADirectoryError)) == (
        StopReason.STORAGE_ERROR,
        True,
    )
    sender.close()


@both_ways
@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EPIPE, errno.ECONNABORTED, errno.EAGAIN])
def test_storage_error_with_a_socket_errno_is_not_a_disconnect(
    film: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A stand-in for system calls: a file system may return any errno."""

    def fail(*_: object) -> int:
        raise OSError(number, "of the file")

    sender = FileSender(opened(film), pair[0].fileno(), len(BODY))
    monkeypatch.setattr(os, "sendfile", fail)
    monkeypatch.setattr(os, "pread", fail)
    result = sender.send_slice(0, len(BODY))
    assert (result.stop_reason, result.error and result.error.strerror) == (
        StopReason.STORAGE_ERROR,
        "of the file",
    )
    sender.close()


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


@both_ways
@pytest.mark.parametrize("harm", [shorten, overwrite, overwrite_and_keep_the_time])
def test_modified_file_is_never_sent_to_its_end(
    film: Path,
    pair: tuple[socket.socket, socket.socket],
    harm: object,
) -> None:
    file = opened(film)
    assert not is_changed(file)
    assert callable(harm)
    harm(film)
    sender = FileSender(file, pair[0].fileno(), len(BODY))
    result = sender.send_slice(len(BODY) - 1000, len(BODY))
    assert (result.sent, result.stop_reason) == (0, StopReason.FILE_CHANGED)
    assert sender.send_slice(len(BODY) - 40_000, len(BODY)).stop_reason is StopReason.FILE_CHANGED
    sender.close()


def test_replaced_or_removed_file_is_sent_in_its_old_version(film: Path) -> None:
    file = opened(film)
    film.with_name("new").write_bytes(b"new")
    film.with_name("new").replace(film)
    assert not is_changed(file)
    assert read_cached(file, 10, 20) == BODY[10:20]
    file.close()


def test_few_bytes_are_read_without_waiting_if_they_are_in_memory_and_valid(film: Path) -> None:
    file = opened(film)
    assert read_cached(file, 5, 65_000) == BODY[5:65_000]
    assert read_cached(file, len(BODY) - 5, len(BODY) + 5) is None
    overwrite(film)
    assert read_cached(file, 5, 65_000) is None
    file.close()


def test_read_buffer_is_valid_until_the_next_read_or_until_detached(film: Path) -> None:
    pages, file = ReadBuffer(), opened(film)
    first = pages.read(file, 0, 10)
    pages.detach()
    second = pages.read(file, 10, 20)
    assert first is not None
    assert second is not None
    assert (bytes(first), bytes(second)) == (BODY[:10], BODY[10:20])
    assert pages.read(file, 30, 40) == second
    assert bytes(second) == BODY[30:40]
    assert pages.read(file, len(BODY) - 5, len(BODY) + 5) is None
    file.close()


def test_storage_without_nowait_reads_is_read_in_a_thread() -> None:
    ours, theirs = os.pipe()
    status = os.fstat(ours)
    assert read_cached(OpenFile(ours, FileVersion.of(status), "x", 1), 0, 1) is None
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection as the service has them, both ends in the test; its buffers take an unread megabyte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 << 20)
    ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
    theirs.settimeout(10)
    yield ours, theirs
    ours.close()
    theirs.close()


def read_to_the_end(theirs: socket.socket) -> bytes:
    return b"".join(iter(lambda: theirs.recv(1 << 20), b""))


def read_just(theirs: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        received += theirs.recv(count - len(received))
    return bytes(received)


def test_overwrite_after_everything_was_sent_does_not_reach_the_client(
    film: Path, connected: tuple[socket.socket, socket.socket]
) -> None:
    """The client has not read a byte yet: they are in the send buffer."""
    size = 1_000_000
    os.truncate(film, size)
    sender = FileSender(opened(film), connected[0].fileno(), size)
    sent = 0
    while sent < size:
        sent += sender.send_slice(sent, size).sent
    with film.open("r+b") as file:
        file.write(bytes(size))
    sender.close()
    connected[0].close()
    assert read_to_the_end(connected[1]) == BODY[:size]


def send_until_peer_unread(sender: FileSender, size: int) -> StopReason:
    """Send to a client that reads nothing, into buffers that hold it all."""
    result = sender.send_slice(0, size)
    while result.stop_reason in RESUMABLE and sender.sent < size:
        result = sender.send_slice(sender.sent, size)
    return result.stop_reason


@pytest.fixture
def unread_sender(
    film: Path, connected: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileSender]:
    """All but the last chunk of SOME was sent, and the client has read nothing: more than is allowed to be
    unread.
    """
    monkeypatch.setattr(socket_queues, "MAX_BUFFERED_LOCAL_BYTES", 200_000)
    os.truncate(film, SOME)
    sender = FileSender(opened(film), connected[0].fileno(), SOME)
    assert send_until_peer_unread(sender, SOME) is StopReason.PEER_UNREAD
    assert SOME - module.COPY_BYTES <= sender.sent < SOME
    yield sender
    sender.close()


def test_last_bytes_for_a_local_client_wait_until_all_pages_are_read(
    film: Path, connected: tuple[socket.socket, socket.socket], unread_sender: FileSender
) -> None:
    """An overwrite in place before the client has read them is detected, and the body does
    not end cleanly.
    """
    assert unread_sender.has_unread_pages()
    wait_until(lambda: unread_sender.unread_by_peer() == unread_sender.sent)
    with film.open("r+b") as file:
        file.write(bytes(SOME))
    read_just(connected[1], unread_sender._sent_by_sendfile - 1)
    assert unread_sender.send_slice(unread_sender.sent, SOME).stop_reason is StopReason.PEER_UNREAD
    read_just(connected[1], 1)
    wait_until(lambda: not unread_sender.has_unread_pages())
    assert unread_sender.send_slice(unread_sender.sent, SOME).stop_reason is StopReason.FILE_CHANGED


def test_client_that_has_read_all_pages_gets_the_rest(
    connected: tuple[socket.socket, socket.socket], unread_sender: FileSender
) -> None:
    received = read_just(connected[1], unread_sender._sent_by_sendfile)
    wait_until(lambda: not unread_sender.has_unread_pages())
    assert send_all(unread_sender, unread_sender.sent, SOME) is StopReason.CONTINUE
    unread_sender.close()
    connected[0].close()
    assert received + read_to_the_end(connected[1]) == BODY[:SOME]


def test_client_counts_as_behind_while_the_kernel_cannot_tell(
    connected: tuple[socket.socket, socket.socket], unread_sender: FileSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a process without free descriptors."""

    def refuse(_: socket.socket) -> int:
        raise OSError(errno.EMFILE, "too many")

    read_just(connected[1], unread_sender.sent)
    with monkeypatch.context() as full:
        full.setattr(socket_queues, "unread", refuse)
        assert (unread_sender.unread_by_peer(), unread_sender.has_unread_pages()) == (
            unread_sender.sent,
            True,
        )
    wait_until(lambda: not unread_sender.has_unread_pages())


def test_disconnected_client_is_not_waited_for(
    connected: tuple[socket.socket, socket.socket], unread_sender: FileSender
) -> None:
    connected[1].close()
    wait_until(lambda: not unread_sender.has_unread_pages())
    assert unread_sender.send_slice(unread_sender.sent, SOME).stop_reason is StopReason.DISCONNECTED


def test_packets_are_full_within_a_slice_and_nothing_is_held_back_after_it(
    film: Path, connected: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    held_bytes: list[int] = []
    read = os.pread

    def watched(*args: int) -> bytes:
        held_bytes.append(connected[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
        return read(*args)

    sender = FileSender(opened(film), connected[0].fileno(), 1000)
    monkeypatch.setattr(os, "pread", watched)
    assert sender.send_slice(0, 1000).sent == 1000
    assert set(held_bytes) == {1}
    assert connected[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0
    sender.close()


def test_bytes_before_the_last_buffer_are_sent_by_sendfile(
    film: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_pages: list[int] = []
    send = os.sendfile

    def watched(*args: int) -> int:
        by_pages.append(args[2])
        return send(*args)

    monkeypatch.setattr(os, "sendfile", watched)
    sender = FileSender(opened(film), pair[0].fileno(), len(BODY) + max_buffered_bytes())
    sender.send_slice(0, len(BODY))
    assert by_pages[0] == 0
    sender.close()


def test_aborted_connection_ends_although_a_duplicate_is_open(
    film: Path, connected: tuple[socket.socket, socket.socket]
) -> None:
    """As a thread keeps one open that hangs in a call."""
    ours, theirs = connected
    sender = FileSender(opened(film), ours.fileno(), len(BODY))
    with ours.dup():
        sender.abort()
        ours.close()
        assert theirs.recv(1) == b""
        sender.close()
    sender.abort()


def test_aborted_connection_discards_unsent_bytes(
    film: Path, connected: tuple[socket.socket, socket.socket]
) -> None:
    """Otherwise they would stay in memory for minutes."""
    ours, theirs = connected
    sender = FileSender(opened(film), ours.fileno(), len(BODY))
    sender.send_slice(0, len(BODY))
    sender.abort()
    ours.close()
    sender.close()
    with pytest.raises(ConnectionResetError):
        read_to_the_end(theirs)


def test_file_sender_reports_sent_and_unacknowledged_bytes_and_its_peers(
    film: Path, connected: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    read = os.pread

    def watched(*args: int) -> bytes:
        seen.append(sender.in_use)
        return read(*args)

    sender = FileSender(opened(film), connected[0].fileno(), len(BODY))
    monkeypatch.setattr(os, "pread", watched)
    first = sender.send_slice(0, 100_000).sent
    assert (sender.sent, sender.in_use, set(seen)) == (first, False, {True})
    sender.send_slice(first, len(BODY))
    waits = sender.queues.unacked()
    assert 0 < waits <= sender.sent
    assert connected[1].recv(1 << 20, socket.MSG_WAITALL)
    wait_until(lambda: sender.queues.unacked() < waits)
    assert not sender.closed_by_client()
    connected[1].shutdown(socket.SHUT_WR)
    wait_until(sender.closed_by_client)
    sender.close()


@pytest.mark.parametrize(
    "change", [lambda path: path.chmod(0o640), lambda path: os.link(path, path.with_name("second"))]
)
def test_change_that_could_hide_a_change_of_the_bytes_counts(
    film: Path, change: Callable[[Path], None]
) -> None:
    file = opened(film)
    change(film)
    assert is_changed(file)
    file.close()


def test_chunks_are_smaller_on_slow_storage(
    film: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the clock: every call counts as slow."""
    monkeypatch.setattr(socket_sender, "SLOW_CHUNK_S", -1.0)
    sender = FileSender(opened(film), pair[0].fileno(), len(BODY))
    sender.send_slice(0, len(BODY))
    assert socket_sender.FIRST_CHUNK_BYTES // 4 <= sender._chunk < socket_sender.FIRST_CHUNK_BYTES
    assert os.fstat(sender.socket_fd) == os.fstat(pair[0].fileno())
    sender.close()
