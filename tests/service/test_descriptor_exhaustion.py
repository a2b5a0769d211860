from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobsvc.service.accept_errors import AcceptErrors
from jobsvc.service.descriptors import connections_allowed
from jobsvc.storage.files.descriptor_reserve import DescriptorReserve
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.nonblocking.descriptor_cache import Folder, _CachedFile
from jobsvc.storage.sendfile.epoll_sender import EpollSender
from jobsvc.storage.sendfile.file_sender import FileSender
from jobsvc.storage.state import token_file
from tests.checks.open_fds import open_paths
from tests.clients.raw_http import request
from tests.conftest import MakeJob, Serve, StartProcess
from tests.eventually import until, wait_until

STATUS = "/api/jobs/job-1"


@contextmanager
def exhausted() -> Iterator[None]:
    """Use up all descriptors that this process may still open."""
    with ExitStack() as stack:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 512), limits[1]))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


def opened(path: Path) -> OpenFile:
    fd = os.open(path, os.O_RDONLY)
    status = os.fstat(fd)
    return OpenFile(fd, FileVersion.of(status), path.name, status.st_nlink)


def test_tokens_can_be_read_when_all_descriptors_are_used_up(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    _, token = token_file.create(path, "anna", label="portal")
    reserve = DescriptorReserve()
    reserve.fill()
    with exhausted():
        for _ in range(2):
            assert token_file.load_if_changed(path, None, reserve)[1] == (token,)
            reserve.fill()
        with pytest.raises(token_file.BadTokenFile):
            token_file.load_if_changed(path)
    reserve.close()


def test_empty_reserve_raises_the_error_of_open(tmp_path: Path) -> None:
    reserve = DescriptorReserve()
    with exhausted(), pytest.raises(OSError, match="Too many open files") as caught:
        reserve.open(tmp_path, os.O_RDONLY)
    assert caught.value.errno == errno.EMFILE


async def test_download_without_a_descriptor_left_is_503_and_leaks_nothing(
    serve: Serve, make_job: MakeJob, jobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job("film", output=bytes(3_000_000))
    service = await serve()
    assert (await service.get("/api/jobs/film")).status == 200

    def no_descriptor(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("jobsvc.storage.sendfile.socket_sender.os.dup", no_descriptor)
    for _ in range(3):
        answer = await service.download("film")
        assert (answer.status, answer.code) == (503, "storage-unavailable")
    await until(lambda: not open_paths(jobs_root))
    assert [line["outcome"] for line in await service.wait_for_downloads(3)] == ["storage-error"] * 3


def test_failing_file_sender_keeps_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (film := tmp_path / "film").write_bytes(b"film")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        file, before = opened(film), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names

        def broken(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOBUFS, "no buffers")

        monkeypatch.setattr("jobsvc.storage.sendfile.socket_sender.socket.socket", broken)
        with pytest.raises(OSError, match="no buffers"):
            FileSender(file, ours.fileno(), 4)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names
        file.close()


async def test_epoll_sender_that_cannot_watch_a_socket_closes_the_sender(tmp_path: Path) -> None:
    (film := tmp_path / "film").write_bytes(b"film")
    closed: list[object] = []
    epoll_sender = EpollSender(closed.append, deadline=5)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = FileSender(opened(film), ours.fileno(), 4)
        epoll_sender._epoll.register(sender.socket_fd)  # so that the next registration fails
        with pytest.raises(FileExistsError):
            epoll_sender.send(sender, 0, 4)
        assert closed == [sender]
        sender.close()
        epoll_sender.close()


def test_cached_output_closes_all_its_descriptors_even_if_one_fails(tmp_path: Path) -> None:
    (film := tmp_path / "film").write_bytes(b"film")
    file, folder = opened(film), os.open(tmp_path, os.O_PATH)
    kept = _CachedFile(record=None, file=file, ctime_ns=0, folders=(Folder(folder, 0),))  # type: ignore[arg-type]
    os.close(file.fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kept.close()
    assert not open_paths(tmp_path)


@pytest.mark.parametrize(
    ("limit", "allowed"), [(128, 32), (256, 64), (1024, 256), (4096, 3312), (20_000, 19_216)]
)
def test_connections_leave_descriptors_for_everything_else(limit: int, allowed: int) -> None:
    assert connections_allowed(limit, max_downloads=256) == allowed


def test_soft_limit_of_descriptors_is_raised_to_the_hard_one(start_process: StartProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, max(1024, in_use + 200)), hard))
    try:
        service = start_process()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (line,) = service.lines("serving")
    assert line["descriptors"] == min(hard, 1_048_576)
    assert (
        f"Max open files            {line['descriptors']}"
        in Path(f"/proc/{service.process.pid}/limits").read_text()
    )


@pytest.mark.alone
def test_revocation_works_while_half_heads_use_up_all_connections(
    start_process: StartProcess, make_job: MakeJob, state_dir: Path
) -> None:
    make_job("job-1")
    service = start_process("--max-connections", "32", "--limit-status", "1000000/minute")
    with ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 5))

        def ask(link: socket.socket) -> bytes:
            link.sendall(request("GET", STATUS, token=service.token))
            return link.recv(65_536)[:12]

        kept = connect()
        wait_until(lambda: ask(kept) == b"HTTP/1.1 200")
        (token,) = token_file.load(state_dir / "tokens.json")
        for _ in range(100):
            connect().sendall(b"GET / HTTP/1.1\r\n")
        token_file.revoke(state_dir / "tokens.json", token.id)
        revoked_at = time.monotonic()
        for _ in range(100):
            connect().sendall(b"GET / HTTP/1.1\r\n")
        wait_until(lambda: ask(kept) == b"HTTP/1.1 401")
        assert time.monotonic() - revoked_at < 2


async def test_failed_accepts_are_handled_once_and_logged_once_a_minute() -> None:
    """Reported by a real listening socket, as often as asyncio reports it."""
    errors: list[int] = []
    made_room: list[int] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(AcceptErrors(lambda: errors.append(1), lambda: made_room.append(1)))
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, backlog=1024)
    address = server.sockets[0].getsockname()
    with socket.socket() as link, capture_logs() as logs:
        with exhausted():
            link.connect(address)
            await until(lambda: errors)
            await asyncio.sleep(0)
        assert len(errors) == len(made_room) <= 2
        assert [line["event"] for line in logs] == ["accept-failed"]
        link.settimeout(0)
        assert await loop.sock_recv(link, 1) == b""  # asyncio has accepted it after a second
    server.close()
    loop.set_exception_handler(None)


async def test_other_errors_of_the_loop_go_to_its_default_handler(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    AcceptErrors(lambda: 1 / 0, lambda: 1 / 0)(
        loop, {"message": "something else", "exception": OSError(5, "x")}
    )
    assert "something else" in caplog.text
