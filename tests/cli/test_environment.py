"""The service in unusual environments: closed descriptors, locales whose encoding is not UTF-8."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.raw_http import request
from tests.conftest import MakeJob, MakeToken
from tests.eventually import wait_until
from tests.programs.ports import free_port
from tests.programs.service_runner import PROJECT, stop_process

FILM = os.urandom(300_000)


@contextmanager
def serving(script: str, root: Path, state_dir: Path, **variables: str) -> Iterator[tuple[int, int]]:
    """Run `jobsvc serve` from a shell script; return its process id and port once it accepts connections."""
    port = free_port()
    words = ("-m", "jobsvc", "serve", root, "--state-dir", state_dir, "--port", port, "--watch", "poll")
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", sys.executable, *map(str, words)],
        cwd=PROJECT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(port) or process.poll() is not None, 30)
        assert process.poll() is None
        yield process.pid, port
    finally:
        stop_process(process)


def answers(port: int) -> bool:
    try:
        return ask(port, request("GET", "/healthz", [("Connection", "close")])).endswith(b"ok\n")
    except ConnectionError:
        return False


def ask(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        link.sendall(data)
        return b"".join(iter(lambda: link.recv(1 << 20), b""))


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&-", "2>&-"])
def test_closed_standard_streams_do_not_become_sockets_or_files(
    jobs_root: Path, state_dir: Path, make_job: MakeJob, make_token: MakeToken, closed: str
) -> None:
    make_job("film", output=FILM)
    download = request("GET", "/api/jobs/film/download", [("Connection", "close")], token=make_token())
    with serving(f'exec "$@" {closed}', jobs_root, state_dir) as (pid, port):
        assert ask(port, download).endswith(FILM)
        for number in range(3):
            target = Path(f"/proc/{pid}/fd/{number}").readlink()
            assert "socket" not in str(target)
            assert not target.is_relative_to(jobs_root)
            assert not target.is_relative_to(state_dir)


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_YY.nonsense", "LANG": "nonsense"},
    ],
    ids=["C", "C, and no UTF-8 mode", "invalid"],
)
def test_file_names_are_utf_8_in_every_locale(
    jobs_root: Path, state_dir: Path, make_job: MakeJob, make_token: MakeToken, variables: dict[str, str]
) -> None:
    make_job("film", output=FILM, outputPath="output/título-映画.mp4")
    download = request("GET", "/api/jobs/film/download", [("Connection", "close")], token=make_token())
    with serving('exec "$@"', jobs_root, state_dir, **variables) as (_, port):
        assert ask(port, download).endswith(FILM)
