"""Sending archives to a socket, and changes of their files meanwhile."""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.outputs import Output
from jobsvc.storage.archive import archive_sender as module
from jobsvc.storage.archive import member_files
from jobsvc.storage.archive import zip as zip_module
from jobsvc.storage.archive.archive_sender import BUFFER_BYTES, ArchiveSender
from jobsvc.storage.archive.crc32 import Crc32Table
from jobsvc.storage.archive.file_list import FileList
from jobsvc.storage.archive.layout import ArchiveLayout, FileRange
from jobsvc.storage.archive.tar import TarLayout, tar_layout
from jobsvc.storage.archive.zip import zip_layout
from jobsvc.storage.files import file_version, safe_open
from jobsvc.storage.sendfile import socket_queues
from jobsvc.storage.sendfile.socket_sender import RESUMABLE, SendResult, StopReason
from tests.checks.open_fds import open_paths
from tests.storage.archive.trees import FolderSource, bytes_of, length_of, listed, run, write_files

OUTPUTS = [Output("all", "out"), Output("seq", "seq/f.####.exr"), Output("film", "film.mp4")]
LARGE = BUFFER_BYTES * 5 + 77

Pair = tuple[socket.socket, socket.socket]


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - test data


FILES = {
    "out/a": b"", "out/b/c": b"c", "out/b/d": random_bytes(512), "out/large": random_bytes(LARGE),
    "out/z/\N{SNOWMAN}": random_bytes(5000), "seq/f.0001.exr": random_bytes(511),
    "seq/f.0002.exr": random_bytes(LARGE), "seq/f.0003.exr": random_bytes(20_000),
    "film.mp4": random_bytes(1_000_000),
}  # fmt: skip
ORDER = list(FILES)


both_ways = pytest.mark.usefixtures("way")


@pytest.fixture
def by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a large file but its last piece is sent by sendfile."""
    monkeypatch.setattr(socket_queues, "max_buffered_bytes", lambda: 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_files(tmp_path, FILES)
    return tmp_path


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def tcp() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)  # noqa: FBT003 - as above
    yield ours, theirs
    ours.close()
    theirs.close()


def layout_of(root: Path) -> TarLayout:
    return run(tar_layout(listed(root, *OUTPUTS)))


def whole(layout: TarLayout) -> bytes:
    return bytes_of(layout, [FILES[name] for name in ORDER])


class Receiver:
    """Reads everything from a socket in a thread."""

    def __init__(self, theirs: socket.socket) -> None:
        self.data = bytearray()
        self._socket = theirs
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while data := self._socket.recv(1 << 20):
            self.data.extend(data)

    def finish(self, ours: socket.socket) -> bytes:
        ours.shutdown(socket.SHUT_WR)
        self._thread.join(30)
        return bytes(self.data)


def send(sender: ArchiveSender, start: int, stop: int, step: int | None = None) -> SendResult:
    """Send a range in slices, or in chunks of at most `step` bytes; return the last result."""
    result = SendResult(0, StopReason.CONTINUE)
    while start < stop:
        result = (
            sender.send_slice(start, stop)
            if step is None
            else sender.send_chunk(start, min(stop, start + step))
        )
        start += result.sent
        if result.stop_reason not in {*RESUMABLE, StopReason.PEER_UNREAD}:
            return result
    return result


def sender_of(root: Path, layout: TarLayout, ours: socket.socket, *ranges: tuple[int, int]) -> ArchiveSender:
    return ArchiveSender(layout, FolderSource(root), ours.fileno(), ranges or [(0, layout.length)])


def sent_whole(root: Path, layout: TarLayout, pair: Pair) -> bytes:
    """Send the whole archive; return what the client received."""
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0])
    send(sender, 0, layout.length)
    sender.close()
    return receiver.finish(pair[0])


def test_example_has_its_files_in_this_order(root: Path) -> None:
    files = listed(root, *OUTPUTS)
    assert [file.version.size for file in files] == [len(FILES[name]) for name in ORDER]


@both_ways
@pytest.mark.parametrize("step", [None, 4099, 300_000])
def test_exactly_the_archive_arrives(root: Path, pair: Pair, step: int | None) -> None:
    layout = layout_of(root)
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0])
    names = [sender.file_name]
    assert send(sender, 0, layout.length, step).stop_reason in RESUMABLE
    names.append(sender.file_name)
    assert names == [None, "film/film.mp4"]
    assert sender.sent == layout.length
    sender.close()
    assert receiver.finish(pair[0]) == whole(layout)
    assert open_paths(root) == []


@both_ways
def test_several_ranges_arrive_in_their_order(root: Path, pair: Pair) -> None:
    layout = layout_of(root)
    end = layout.length
    ranges = [(600_000, 1_900_000), (3, 5), (700_000, 2_000_000), (end - 700_000, end), (0, 3000)]
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0], *ranges)
    for start, stop in ranges:
        assert send(sender, start, stop).stop_reason in RESUMABLE
    sender.close()
    data = whole(layout)
    assert receiver.finish(pair[0]) == b"".join(data[start:stop] for start, stop in ranges)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_random_ranges_and_steps_arrive(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    write_files(root, FILES)
    layout = layout_of(root)
    start = data.draw(st.integers(0, layout.length - 1))
    stop = data.draw(st.integers(start + 1, layout.length))
    step, bound = data.draw(st.integers(5_000, 2_000_000)), data.draw(st.integers(0, 200_000))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - as above
    with pytest.MonkeyPatch.context() as patch, ours, theirs:
        patch.setattr(socket_queues, "max_buffered_bytes", lambda: bound)
        receiver = Receiver(theirs)
        sender = sender_of(root, layout, ours, (start, stop))
        send(sender, start, stop, step)
        sender.close()
        assert receiver.finish(ours) == whole(layout)[start:stop]


def test_bytes_that_do_not_fit_the_socket_are_not_read_again(
    root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = os.preadv

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        count = real(fd, buffers, offset)
        read.append(count)
        return count

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(socket_queues, "max_buffered_bytes", lambda: 1 << 40)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    layout = layout_of(root)
    assert sent_whole(root, layout, pair) == whole(layout)
    assert sum(read) == layout.files.total_size


def test_slice_that_is_shorter_than_what_is_collected_sends_no_more(root: Path, pair: Pair) -> None:
    layout = layout_of(root)
    sender = sender_of(root, layout, pair[0])
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sent = sender.send_chunk(0, 200_000).sent
    assert 0 < sent < 200_000
    pair[1].recv(1 << 20)
    assert sender.send_chunk(sent, sent + 7).sent == 7
    sender.close()


def test_one_file_and_one_directory_are_open_at_a_time(
    root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    real = os.preadv

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        nonlocal most
        most = max(most, len(open_paths(root)))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    layout = layout_of(root)
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0])
    assert open_paths(root) == []
    send(sender, 0, layout.length)
    sender.close()
    sender.close()
    receiver.finish(pair[0])
    assert most == 2
    assert open_paths(root) == []


def replaced(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def linked(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def made_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


CHANGES: list[Callable[[Path], object]] = [
    replaced, touched, linked, made_a_fifo, grown, Path.unlink, lambda path: os.truncate(path, 3),
]  # fmt: skip


@both_ways
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["out/b/d", "seq/f.0002.exr", "film.mp4"])
def test_changed_file_ends_the_archive_before_it(
    root: Path, pair: Pair, name: str, change: Callable[[Path], object]
) -> None:
    layout = layout_of(root)
    change(root / name)
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0])
    result = send(sender, 0, layout.length)
    assert result.stop_reason is StopReason.FILE_CHANGED
    index = ORDER.index(name)
    assert sender.file_name is not None
    assert sender.file_name.endswith(name.rpartition("/")[2])
    sender.close()
    data = receiver.finish(pair[0])
    assert len(data) == sender.sent
    assert whole(layout).startswith(data)
    (content_at,) = [start for start, stop, file in spans(layout) if file == index]
    assert len(data) == content_at
    assert open_paths(root) == []


def test_directory_that_became_a_link_ends_the_archive(root: Path, pair: Pair) -> None:
    layout = layout_of(root)
    (root / "out/b").rename(root / "moved")
    (root / "out/b").symlink_to(root / "moved")
    sender = sender_of(root, layout, pair[0])
    assert send(sender, 0, layout.length).stop_reason is StopReason.FILE_CHANGED
    assert sender.file_name == "all/b/c"
    assert sender.sent == 1024
    sender.close()


def spans(layout: ArchiveLayout) -> Iterator[tuple[int, int, int]]:
    """Yield the start and stop of each file's content, and its index."""
    at = 0
    for piece in layout.pieces(0, layout.length):
        if isinstance(piece, FileRange):
            yield at, at + length_of(piece), piece.file
        at += length_of(piece)


@both_ways
@pytest.mark.parametrize("change", [touched, grown, lambda path: os.truncate(path, 3)])
def test_large_file_that_changes_while_it_is_sent_is_not_completed(
    root: Path, pair: Pair, change: Callable[[Path], object]
) -> None:
    layout = layout_of(root)
    (content,) = [span for span in spans(layout) if span[2] == ORDER.index("out/large")]
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0])
    send(sender, 0, content[0] + 300_000)
    change(root / "out/large")
    result = send(sender, content[0] + 300_000, layout.length)
    assert result.stop_reason is StopReason.FILE_CHANGED
    assert sender.file_name == "all/large"
    assert content[0] + 300_000 <= sender.sent < content[1]
    sender.close()
    receiver.finish(pair[0])


def test_file_whose_name_is_renamed_over_while_it_is_sent_is_completed(root: Path, pair: Pair) -> None:
    layout = layout_of(root)
    (content,) = [span for span in spans(layout) if span[2] == ORDER.index("out/large")]
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0])
    send(sender, 0, content[0] + 300_000)
    (root / "new").write_bytes(b"new")
    (root / "new").rename(root / "out/large")
    assert send(sender, content[0] + 300_000, layout.length).stop_reason in RESUMABLE
    sender.close()
    assert receiver.finish(pair[0]) == whole(layout)


def test_range_that_ends_within_a_file_checks_it(root: Path, pair: Pair) -> None:
    layout = layout_of(root)
    (content,) = [span for span in spans(layout) if span[2] == ORDER.index("out/large")]
    sender = sender_of(root, layout, pair[0], (content[0], content[0] + 20_000))
    assert sender.send_chunk(content[0], content[0] + 10_000).sent == 10_000
    touched(root / "out/large")
    result = sender.send_chunk(content[0] + 10_000, content[0] + 20_000)
    assert result == SendResult(0, StopReason.FILE_CHANGED)
    sender.close()


@pytest.mark.usefixtures("by_pages")
def test_last_piece_of_a_file_waits_until_the_client_has_read_its_pages(root: Path, tcp: Pair) -> None:
    layout = layout_of(root)
    (content,) = [span for span in spans(layout) if span[2] == ORDER.index("out/large")]
    ours, theirs = tcp
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
    sender = sender_of(root, layout, ours, (content[0], content[1]))
    at, data = content[0], b""
    while (result := sender.send_chunk(at, content[1])).stop_reason is not StopReason.PEER_UNREAD:
        assert result.stop_reason in RESUMABLE
        at += result.sent
        if not result.sent:
            data += theirs.recv(1000)
    assert at < content[1]
    assert sender.has_unread_pages()
    receiver = Receiver(theirs)
    while at < content[1]:
        at += sender.send_chunk(at, content[1]).sent
    sender.close()
    assert data + receiver.finish(ours) == FILES["out/large"]


def test_storage_fault_is_reported_with_its_error(
    root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layout_of(root)
    real = safe_open.open_file

    def broken(folder: int, name: str) -> Any:
        if name == "f.0001.exr":
            raise OSError(errno.EIO, "broken")
        return real(folder, name)

    monkeypatch.setattr(member_files, "open_file", broken)
    receiver = Receiver(pair[1])
    sender = sender_of(root, layout, pair[0])
    result = send(sender, 0, layout.length)
    assert (result.stop_reason, str(result.error)) == (StopReason.STORAGE_ERROR, "[Errno 5] broken")
    assert sender.file_name == "seq/f.0001.exr"
    sender.close()
    receiver.finish(pair[0])


@pytest.mark.usefixtures("by_pages")
def test_file_that_sendfile_cannot_send_is_copied(
    root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, "not supported")

    monkeypatch.setattr(os, "sendfile", refused)
    layout = layout_of(root)
    assert sent_whole(root, layout, pair) == whole(layout)


def test_client_that_is_gone_ends_the_archive(root: Path, pair: Pair) -> None:
    layout = layout_of(root)
    sender = sender_of(root, layout, pair[0])
    pair[1].close()
    assert send(sender, 0, layout.length).stop_reason is StopReason.DISCONNECTED
    sender.close()


def test_collecting_ends_after_its_time(root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLLECT_S", -1.0)
    layout = layout_of(root)
    sender = sender_of(root, layout, pair[0])
    assert sender.send_chunk(0, layout.length).sent == 512
    receiver = Receiver(pair[1])
    send(sender, sender.sent, layout.length)
    sender.close()
    assert receiver.finish(pair[0]) == whole(layout)


def test_archive_without_files_is_sent(tmp_path: Path, pair: Pair) -> None:
    layout = run(tar_layout(FileList([])))
    sender = sender_of(tmp_path, layout, pair[0])
    assert sender.send_slice(0, layout.length) == SendResult(1024, StopReason.CONTINUE)
    assert pair[1].recv(2000) == bytes(1024)
    sender.close()


@pytest.fixture
def all_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as unmodified for long enough."""
    monkeypatch.setattr(file_version, "TIMESTAMP_GRANULARITY_NS", -(1 << 62))


@pytest.mark.usefixtures("way", "all_stable")
@pytest.mark.parametrize("read_first", [0, 300_000, 1 << 26])
@pytest.mark.parametrize("step", [None, 4099, 100_000])
def test_exactly_the_zip_arrives_whatever_crcs_are_known(
    root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch, read_first: int, step: int | None
) -> None:
    monkeypatch.setattr(zip_module, "MAX_READ_FIRST_BYTES", read_first)
    table, files = Crc32Table(), listed(root, *OUTPUTS)
    contents = [FILES[name] for name in ORDER]
    receiver = Receiver(pair[1])
    expected = b""
    for is_known in (False, True):
        layout = run(zip_layout(files, table))
        assert layout.has_ranges is is_known
        expected += bytes_of(run(zip_layout(files, copy_of(table))), contents)
        sender = ArchiveSender(layout, FolderSource(root), pair[0].fileno(), [(0, layout.length)])
        assert send(sender, 0, layout.length, step).stop_reason in RESUMABLE
        sender.close()
    assert receiver.finish(pair[0]) == expected
    assert [table.get(file.version) for file in files if file.version.size] == [
        crc32(content) for content in contents if content
    ]


def copy_of(table: Crc32Table) -> Crc32Table:
    copy = Crc32Table()
    copy._entries.update(table._entries)
    return copy


def test_file_is_read_in_several_chunks_to_compute_its_crc(
    root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COLLECT_S", -1.0)
    files = listed(root, *OUTPUTS).select(["film"])
    layout = run(zip_layout(files, Crc32Table()))
    sender = ArchiveSender(layout, FolderSource(root), pair[0].fileno(), [(0, layout.length)])
    chunks = len(FILES["film.mp4"]) // BUFFER_BYTES
    results = [sender.send_chunk(0, layout.length) for _ in range(chunks + 1)]
    assert results == [SendResult(0, StopReason.CONTINUE)] * (chunks + 1)
    assert sender.send_chunk(0, layout.length).sent == next(spans(layout))[0]
    sender.close()


@pytest.mark.usefixtures("all_stable")
@pytest.mark.parametrize("read_first", [0, 1 << 26])
@pytest.mark.parametrize("change", [grown, touched, lambda path: os.truncate(path, 3)])
def test_crc_of_a_changed_file_is_not_remembered(
    root: Path,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    read_first: int,
    change: Callable[[Path], object],
) -> None:
    monkeypatch.setattr(zip_module, "MAX_READ_FIRST_BYTES", read_first)
    monkeypatch.setattr(module, "COLLECT_S", -1.0)
    table, files = Crc32Table(), listed(root, *OUTPUTS).select(["film"])
    layout = run(zip_layout(files, table))
    sender = ArchiveSender(layout, FolderSource(root), pair[0].fileno(), [(0, layout.length)])
    at = sum(sender.send_chunk(0, 400).sent for _ in range(2))
    change(root / "film.mp4")
    receiver = Receiver(pair[1])
    assert send(sender, at, layout.length).stop_reason is StopReason.FILE_CHANGED
    sender.close()
    receiver.finish(pair[0])
    assert len(table) == 0
