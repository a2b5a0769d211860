from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import orjson
import pytest

from jobsvc.service.supervision.listeners import UnusableSocket, address_text, inherited_sockets
from jobsvc.service.supervision.service_manager import ServiceManager
from tests.clients.raw_http import Answer, IncompleteAnswer, connection, request
from tests.conftest import MakeJob, MakeToken
from tests.eventually import pause, until, wait_until
from tests.programs.external_programs import needs
from tests.programs.service_runner import PROJECT, logged, stop_process

_AS_PARENT: Final = """
import os, sys
for number, name in enumerate(sys.argv[1].split(","), 3):
    os.dup2(int(name), number)
    os.close(int(name))
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sys.argv[1].split(",")))}
os.execv(sys.executable, [sys.executable, "-m", "jobsvc", *sys.argv[2:]])
"""
"""Starts the service with sockets, as systemd does: the variables name the process that they are for."""


class Activated:
    """Starts services that inherit the same sockets, one after the other."""

    def __init__(self, folder: Path, arguments: list[object], sockets: list[socket.socket]) -> None:
        self._folder = folder
        self._arguments = arguments
        self._sockets = sockets
        self.process: subprocess.Popen[bytes]
        self.stderr_file: Path

    def start(self, **variables: str) -> None:
        """Start the service and wait until it is ready, or has ended."""
        self.stderr_file = self._folder / f"said-{len(list(self._folder.glob('said-*')))}"
        numbers = [os.dup(each.fileno()) for each in self._sockets]
        # Above those that the service gets, so that none of them is overwritten.
        high = [os.dup(number) for number in numbers]
        with self.stderr_file.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _AS_PARENT, ",".join(map(str, high)), *map(str, self._arguments)],
                cwd=PROJECT,
                env={**os.environ, "HOME": str(self._folder), **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=high,
            )
        for number in (*numbers, *high):
            os.close(number)
        wait_until(lambda: self.lines("serving") or self.process.poll() is not None, 30)

    def lines(self, event: str) -> list[dict[str, object]]:
        return logged(self.stderr_file, event)


Activate = Callable[..., Activated]


@pytest.fixture
def activate(tmp_path: Path, jobs_root: Path, state_dir: Path) -> Iterator[Activate]:
    with ExitStack() as stack:

        def start(*sockets: socket.socket, words: tuple[object, ...] = (), **variables: str) -> Activated:
            arguments = ["serve", jobs_root, "--state-dir", state_dir, "--watch", "poll", *words]
            activated = Activated(tmp_path, arguments, list(sockets))
            stack.callback(lambda: stop_process(activated.process))
            activated.start(**variables)
            return activated

        yield start


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        yield server


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


async def ask_over(path: Path, target: str, token: str) -> tuple[int, bytes]:
    """Send one request over a Unix socket."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request("GET", target, (("Connection", "close"),), token=token))
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_inherited_socket_is_served_instead_of_host_and_port(
    activate: Activate, listening: socket.socket
) -> None:
    service = activate(listening, words=("--port", 1))
    [line] = service.lines("serving")
    assert line["addresses"] == [f"http://127.0.0.1:{port_of(listening)}"]
    [line] = service.lines("inherited-sockets")
    assert line["sockets"] == 1
    async with connection(port_of(listening)) as link:
        assert (await link.ask("GET", "/healthz")).status == 200


async def test_tcp_and_unix_sockets_are_served_together(
    activate: Activate,
    listening: socket.socket,
    tmp_path: Path,
    make_job: MakeJob,
    make_token: MakeToken,
    state_dir: Path,
) -> None:
    film = os.urandom(3_000_000)
    make_job(output=film)
    token = make_token()
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        service = activate(listening, unix)
        assert service.lines("serving")[0]["addresses"] == [
            f"http://127.0.0.1:{port_of(listening)}",
            f"unix:{path}",
        ]
        async with connection(port_of(listening)) as link:
            assert (await link.ask("GET", "/healthz")).status == 200
        assert await ask_over(path, "/api/jobs/job-1/download", token) == (200, film)
        assert (await ask_over(path, "/api/jobs/job-1", token))[0] == 200
        assert (await ask_over(path, "/api/jobs/job-1", "wrong"))[0] == 401
        stop_process(service.process)
        assert path.exists()
    [line] = map(orjson.loads, (state_dir / "downloads.jsonl").read_bytes().splitlines())
    assert line["client"] == "127.0.0.1"


async def test_peer_of_a_unix_socket_can_be_a_trusted_proxy(
    activate: Activate, tmp_path: Path, make_job: MakeJob, make_token: MakeToken, state_dir: Path
) -> None:
    make_job(output=b"film")
    token = make_token()
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        service = activate(unix, words=("--trusted-proxy", "127.0.0.1"))
        reader, writer = await asyncio.open_unix_connection(str(path))
        fields = (("X-Forwarded-For", "192.0.2.7"), ("Connection", "close"))
        writer.write(request("GET", "/api/jobs/job-1/download", fields, token=token))
        assert (await reader.read()).endswith(b"\r\n\r\nfilm")
        writer.close()
        stop_process(service.process)
    [line] = map(orjson.loads, (state_dir / "downloads.jsonl").read_bytes().splitlines())
    assert line["client"] == "192.0.2.7"


def test_child_processes_inherit_neither_sockets_nor_variables(
    activate: Activate, listening: socket.socket
) -> None:
    service = activate(listening, words=("--watch", "events"), NOTIFY_SOCKET="/nonexistent/socket")
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    wait_until(children.read_text)
    inode = Path(f"/proc/self/fd/{listening.fileno()}").readlink()
    assert inode in links(service.process.pid)
    for child in children.read_text().split():
        wait_until(partial(has_not, int(child), inode))
        names = {part.partition(b"=")[0] for part in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")}
        assert not names & {b"LISTEN_PID", b"LISTEN_FDS", b"NOTIFY_SOCKET"}


def has_not(pid: int, link: Path) -> bool:
    return link not in links(pid)


def links(pid: int) -> set[Path]:
    """Return what the descriptors of a process refer to."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(link.readlink())
    return found


def test_variables_for_another_process_are_ignored_and_removed() -> None:
    environment = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "A": "b"}
    assert inherited_sockets(environment) == []
    assert environment == {"A": "b"}


@pytest.mark.parametrize("count", ["x", "-1", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 5000])
def test_number_of_sockets_that_is_no_number_is_an_error(count: str) -> None:
    with pytest.raises(UnusableSocket, match=f"LISTEN_FDS: '{count[:20]}' is not a number"):
        inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (socket.socket, "is not listening; use Accept=no"),
        (lambda: socket.socket(type=socket.SOCK_DGRAM), "is not a stream socket; use ListenStream="),
        (lambda: open(os.devnull, "rb"), "is not a socket"),  # noqa: PTH123, SIM115 - the test closes it
    ],
)
def test_unusable_descriptor_is_a_one_line_error(
    activate: Activate, make: Callable[[], socket.socket], reason: str
) -> None:
    with make() as unusable:
        service = activate(unusable)
    assert service.process.wait(30) == 2
    [line] = service.lines("not-started")
    assert str(line["reason"]).startswith(f"descriptor 3 of LISTEN_FDS {reason}")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "http://127.0.0.1:80"),
        (("::", 80, 0, 0), "http://[::]:80"),
        ("/run/jobsvc.socket", "unix:/run/jobsvc.socket"),
        (b"\0jobsvc", "unix:@jobsvc"),
    ],
)
def test_addresses_are_shown(address: object, text: str) -> None:
    assert address_text(address) == text


LARGE: Final = 4 << 20
"""Bytes of an output that a connection's buffers cannot hold."""


class Counted:
    """What clients got while the service restarted."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.faults: list[str] = []
        self.reconnects = 0

    def has(self, count: int) -> bool:
        return len(self.statuses) >= count


async def poll(port: int, token: str, counted: Counted, ended: asyncio.Event) -> None:
    """Poll over one connection until `ended`; reconnect only after a response that closes it."""
    while not ended.is_set():
        try:
            async with connection(port) as link:
                answer = None
                while not ended.is_set() and (answer is None or not closes(answer)):
                    answer = await link.ask("GET", "/api/jobs/job-1", token=token)
                    counted.statuses.append(answer.status)
        except (OSError, IncompleteAnswer) as exc:
            counted.faults.append(repr(exc))
        counted.reconnects += 1


async def ask_anew(port: int, token: str, counted: Counted, ended: asyncio.Event) -> None:
    """Send each request over a new connection."""
    while not ended.is_set():
        try:
            async with connection(port) as link:
                counted.statuses.append((await link.ask("GET", "/api/jobs/job-1", token=token)).status)
        except (OSError, IncompleteAnswer) as exc:
            counted.faults.append(repr(exc))


def closes(answer: Answer) -> bool:
    return answer.headers.get("Connection") == "close"


async def test_restart_refuses_no_connection_and_loses_no_request(
    activate: Activate, listening: socket.socket, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job()
    token, port, counted, ended = make_token(), port_of(listening), Counted(), asyncio.Event()
    service = activate(listening, words=("--limit-status", "1000000/second"))
    clients = [
        asyncio.create_task(work(port, token, counted, ended))
        for work in (poll, poll, poll, ask_anew, ask_anew)
    ]
    for _ in range(2):
        answered = len(counted.statuses)
        await until(partial(counted.has, answered + 50))
        service.process.send_signal(signal.SIGTERM)
        await until(lambda: service.process.poll() is not None)
        assert service.process.returncode == 0
        await asyncio.to_thread(service.start)
    answered = len(counted.statuses)
    await until(lambda: len(counted.statuses) > answered + 50)
    ended.set()
    await asyncio.gather(*clients)
    assert counted.faults == []
    assert set(counted.statuses) == {200}
    assert counted.reconnects >= 6, "connections outlast a restart"


async def test_request_in_transit_at_sigterm_is_answered(
    activate: Activate, listening: socket.socket
) -> None:
    """On a connection that is new, and on one that was used."""
    service = activate(listening)
    async with connection(port_of(listening)) as new, connection(port_of(listening)) as used:
        assert (await used.ask("GET", "/healthz")).status == 200
        service.process.send_signal(signal.SIGTERM)
        await until(lambda: service.lines("stopping"))
        for link in (new, used):
            answer = await link.ask("GET", "/healthz")
            assert (answer.status, closes(answer)) == (200, True)
            assert await link.ended()
    assert service.process.wait(15) == 0


async def test_request_after_a_download_in_progress_at_sigterm_is_answered(
    activate: Activate, listening: socket.socket, make_job: MakeJob, make_token: MakeToken
) -> None:
    """The head of the download is sent: it cannot say that the connection closes."""
    make_job(output=bytes(LARGE))
    token = make_token()
    service = activate(listening)
    async with connection(port_of(listening), receive_buffer=4096) as link:
        link.send(request("GET", "/api/jobs/job-1/download", token=token))
        _, status, head = await link.head()
        assert (status, head.get("Connection")) == (200, None)
        service.process.send_signal(signal.SIGTERM)
        await until(lambda: service.lines("stopping"))
        assert len(await link.read(LARGE)) == LARGE
        answer = await link.ask("GET", "/healthz")
        assert (answer.status, closes(answer)) == (200, True)
        assert await link.ended()
    assert service.process.wait(15) == 0


async def test_request_in_progress_at_sigterm_has_a_response_that_closes(
    activate: Activate, listening: socket.socket, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job()
    token = make_token()
    service = activate(listening)
    async with connection(port_of(listening)) as link:
        version = (await link.ask("GET", "/api/jobs/job-1", token=token)).headers["ETag"]
        fields = (("If-None-Match", version),)
        link.send(request("GET", "/api/jobs/job-1?wait=50", fields, token=token))
        async with connection(port_of(listening)) as other:
            while b"jobsvc_requests_waiting 1.0" not in (await other.ask("GET", "/metrics")).body:
                await pause()
        service.process.send_signal(signal.SIGTERM)
        answer = await link.answer()
        assert (answer.status, closes(answer)) == (304, True)
        assert await link.ended()


@needs("systemd-socket-activate")
async def test_systemd_passes_a_socket(
    tmp_path: Path, jobs_root: Path, state_dir: Path, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job()
    token, path = make_token(), tmp_path / "socket"
    command = [sys.executable, "-m", "jobsvc", "serve", str(jobs_root), "--state-dir", str(state_dir)]
    environment = ["-E", f"HOME={tmp_path}", "-E", f"PYTHONPATH={PROJECT}"]
    with (tmp_path / "said").open("wb") as errors:
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
            ["systemd-socket-activate", f"--listen={path}", *environment, *command], stderr=errors
        )
    try:
        await until(lambda: accepts(path))
        assert (await ask_over(path, "/api/jobs/job-1", token))[0] == 200
    finally:
        stop_process(process)


async def test_service_manager_is_notified(
    activate: Activate, listening: socket.socket, tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        service = activate(listening, NOTIFY_SOCKET=str(path))
        assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
        service.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1"


def test_reload_is_announced_with_its_time() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as socket_:
        socket_.bind("\0jobsvc-notify-test-" + str(os.getpid()))
        environment = {"NOTIFY_SOCKET": "@" + socket_.getsockname()[1:].decode()}
        ServiceManager(environment).reloading()
        assert environment == {}
        kind, _, when = socket_.recv(100).decode().partition("\n")
    assert kind == "RELOADING=1"
    assert when.removeprefix("MONOTONIC_USEC=").isdigit()


def test_service_manager_that_is_gone_is_ignored() -> None:
    ServiceManager({"NOTIFY_SOCKET": "/nonexistent/socket"}).ready()
    ServiceManager({}).ready()
