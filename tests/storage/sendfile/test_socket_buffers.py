"""What can wait, and what does wait, between a socket and its client."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jobsvc.storage.sendfile import socket_buffers as module
from jobsvc.storage.sendfile.socket_buffers import max_buffered_bytes, queued_bytes
from tests.eventually import wait_until

DEFAULT = module.MAX_SEND_BUFFER_BYTES + module.MAX_RECEIVE_BUFFER_BYTES


def test_bytes_that_the_client_does_not_read_wait_in_the_send_queue() -> None:
    """The client's buffer is full: the rest waits at our end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with ours, theirs:
        assert queued_bytes(ours) == 0
        ours.sendall(bytes(10_000))
        wait_until(lambda: queued_bytes(ours) == 0)
        ours.setblocking(False)  # noqa: FBT003 - the socket module's own way
        sent = 0
        while True:
            try:
                sent += ours.send(bytes(1 << 20))
            except BlockingIOError:
                break
        assert 0 < queued_bytes(ours) <= sent


@pytest.mark.parametrize(
    ("tcp", "rmem_max", "bound"),
    [
        ("1 2 30\n", "10\n", 60),
        ("1 2 30\n", "40\n", 110),
        ("1 2 30\n", None, 60),
        ("\n", None, DEFAULT),
        ("a b c", "d", DEFAULT),
        (None, None, DEFAULT),
    ],
)
def test_size_of_the_buffers_is_the_systems_or_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcp: str | None, rmem_max: str | None, bound: int
) -> None:
    """A client may set its receive buffer to twice rmem_max; not every network namespace shows that."""
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "core").mkdir()
    for name, text in {"ipv4/tcp_wmem": tcp, "ipv4/tcp_rmem": tcp, "core/rmem_max": rmem_max}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "SETTINGS", tmp_path)
    assert max_buffered_bytes.__wrapped__() == bound
