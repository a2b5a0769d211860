"""The servers under test: each a process of its own on a free loopback port, ended by its own pid."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from benchmarks.harness import host_info, load_generator, process
from benchmarks.harness.load_generator import Address

START_TIMEOUT_S: Final = 60.0
"""Seconds that a server may take until it serves."""
UNLIMITED: Final = "999999999/second"
UNLIMITED_FLAGS: Final = (
    *("--limit-status", UNLIMITED, "--limit-list", UNLIMITED, "--limit-logs", UNLIMITED),
    *("--limit-events", UNLIMITED),
    *("--limit-download", UNLIMITED, "--max-downloads", "100000", "--max-downloads-per-token", "100000"),
    *("--max-streams", "100000", "--max-streams-per-token", "100000"),
)
"""Every limit is active, and none is reached."""

# tcp_nopush is best for whole files, but has each small range wait 40 ms for a delayed acknowledgement.
_NGINX: Final = """
daemon off; {user} worker_processes 1; pid {scratch}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
    keepalive_requests 1000000000; keepalive_timeout 600s; default_type application/octet-stream;
    client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi; uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
    server {{
        listen 127.0.0.1:{port}; root {root};
        location /ranges/ {{ alias {root}/; tcp_nopush off; }}
        location = /nothing {{ return 200 "{nothing}"; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """One running server."""

    name: str
    address: Address
    process: subprocess.Popen[bytes]
    log: Path

    def cpu(self) -> float:
        """Return the CPU seconds used so far, including those of nginx' worker."""
        return process.cpu(self.process.pid, *process.children(self.process.pid))

    def metric(self, name: str) -> float:
        """Read one of the service's metrics, the sum of all labels; `name` without `jobsvc_`."""
        lines = load_generator.answer(self.address, load_generator.get("/metrics"))[1].decode().splitlines()
        samples = (f"jobsvc_{name} ", f"jobsvc_{name}{{")
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(samples))

    def log_lines(self) -> list[dict[str, object]]:
        """Read the service's log."""
        lines = self.log.read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]


@contextmanager
def jobsvc(
    jobs_root: Path,
    scratch: Path,
    *flags: str,
    all_cores: bool = False,
    cores: frozenset[int] | None = None,
    default_limits: bool = False,
) -> Iterator[Server]:
    """Run the service as an operator does; `flags` follow UNLIMITED_FLAGS.

    `default_limits`: without UNLIMITED_FLAGS. `all_cores`: on the load's cores too, and not only on the
    server's. `cores`: on these.
    """
    command = [sys.executable, "-m", "jobsvc", "serve", str(jobs_root), "--state-dir", str(scratch / "state")]
    command += ["--port", "0", *(() if default_limits else UNLIMITED_FLAGS), *flags]
    cores = host_info.all_cores() if all_cores else cores
    with running("jobsvc", command, scratch, cores) as (started, log):
        yield Server("jobsvc", _wait_for_address(started, log), started, log)


def token(scratch: Path, owner: str = "farm", *scopes: str) -> str:
    """Create a token with these scopes, or the default ones; the state directory is below `scratch`."""
    command = [sys.executable, "-m", "jobsvc", "token", "create", "--owner", owner]
    command += [f"--scope={scope}" for scope in scopes]
    command += ["--state-dir", str(scratch / "state")]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=process.REPOSITORY)
    return made.stdout.strip()


@contextmanager
def baseline(scratch: Path, what: str, path: Path, *, loop: str = "uvloop") -> Iterator[Server]:
    """Run one of benchmarks.harness.baselines over a file."""
    command = [sys.executable, "-m", "benchmarks.harness.baselines", what, str(path), "--loop", loop]
    with running(f"aiohttp-{what}-{loop}", command, scratch) as (started, log):
        yield Server(f"aiohttp {what} ({loop})", _wait_for_address(started, log), started, log)


@contextmanager
def nginx(root: Path, scratch: Path) -> Iterator[Server]:
    """Run nginx, one worker, sendfile, over the files in a directory; it has to be on the PATH."""
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX.format(user=user, scratch=scratch, port=port, root=root, nothing="-" * 400)
    (scratch / "nginx.conf").write_text(text, "utf-8")
    command = ["nginx", "-p", str(scratch), "-c", str(scratch / "nginx.conf")]
    with running_at("nginx", ("127.0.0.1", port), command, scratch) as server:
        yield server


@contextmanager
def running_at(
    name: str,
    address: Address,
    command: Sequence[str],
    scratch: Path,
    cores: frozenset[int] | None = None,
) -> Iterator[Server]:
    """Run a server that listens at an address as `running` does, and wait until it accepts connections."""
    with running(name, command, scratch, cores) as (started, log):
        load_generator.until(lambda: _accepts_connections(address, started, log), START_TIMEOUT_S)
        yield Server(name, address, started, log)


def nginx_installed() -> bool:
    """Return whether nginx is on the PATH."""
    return shutil.which("nginx") is not None


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    scratch: Path,
    cores: frozenset[int] | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a server on the server's core, or on these; yield its process and the file of its log."""
    log = scratch / f"{name}.log"
    started = process.start(command, log, cores or host_info.cores()[0])
    try:
        yield started, log
    finally:
        process.stop(started)


def _wait_for_address(running: subprocess.Popen[bytes], log: Path) -> Address:
    """Wait until a server prints its address: a line of JSON with an `address`."""
    addresses: list[Address] = []

    def has_address() -> bool:
        _check_alive(running, log)
        for line in log.read_bytes().splitlines(keepends=True):
            if b'"address"' in line and line.endswith(b"\n"):
                host, _, port = orjson.loads(line)["address"].rpartition("/")[2].rpartition(":")
                addresses.append((host, int(port)))
        return bool(addresses)

    load_generator.until(has_address, START_TIMEOUT_S, pause=0.002)
    return addresses[0]


def _accepts_connections(address: Address, running: subprocess.Popen[bytes], log: Path) -> bool:
    _check_alive(running, log)
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _check_alive(running: subprocess.Popen[bytes], log: Path) -> None:
    if running.poll() is not None:
        raise ChildProcessError(f"it ended with {running.returncode}: {log.read_text('utf-8')[-2000:]}")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
