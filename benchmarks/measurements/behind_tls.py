"""Whole files through nginx with TLS: jobsvc behind it against nginx' own file, by nginx' buffering."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.harness import farm, host_info, servers, table
from benchmarks.harness.interleave import Plan, interleave
from benchmarks.harness.load_generator import Outcome
from benchmarks.harness.servers import Server

JOB: Final = "big-0001"
GIB: Final = 1 << 30
BUFFER_SIZE: Final = 256 * 1024
"""Bytes of the client's buffer."""
CONGESTION_CONTROL: Final = b"reno"
"""The same for every response: BBR would pace them on loopback and hide the differences."""

NGINX_FILE: Final = "nginx' own file"
DOCUMENTED: Final = "unbuffered, 64k (documented)"
BUFFERING: Final = {
    "unbuffered, default buffers": "proxy_buffering off;",
    DOCUMENTED: """
        proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;""",
    "buffered, 16 64k": """
        proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;""",
}
GOAL: Final = table.Goal(at_least=0.85)
"""Relative to the speed of nginx' own file."""

_NGINX: Final = """
daemon off; {user} worker_processes 1; pid {scratch}/nginx.pid; error_log stderr error;
events {{ }}
http {{
    access_log off; sendfile on; tcp_nopush on; gzip off; default_type application/octet-stream;
    client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi; uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
    upstream jobsvc {{ server 127.0.0.1:{backend_port}; keepalive 32; }}
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_max_temp_file_size 0;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {scratch}/certificate; ssl_certificate_key {scratch}/key;
        location /file/ {{ alias {root}/{job}/output/; }}
        {locations}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class _ProxiedServer(Server):
    """nginx in front of another server."""

    backend: Server

    def cpu(self) -> float:
        """Return the CPU seconds that both have used."""
        return Server.cpu(self) + self.backend.cpu()


def run(plan: Plan) -> None:
    """Measure and print."""
    if not servers.nginx_installed():
        table.note("nginx is not on the PATH: nothing to measure")
        return
    size = int(plan.pick(GIB, GIB // 8))
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("behind-tls", plan.scratch))
        root = scratch / "jobs"
        farm.output(root, JOB, size)
        token = servers.token(scratch)
        ours = stack.enter_context(servers.jobsvc(root, scratch))
        alone = stack.enter_context(_nginx(root, scratch, ours.address[1]))
        nginx = _ProxiedServer(alone.name, alone.address, alone.process, alone.log, ours)
        _compare(plan, nginx, size, token)


def _compare(plan: Plan, nginx: Server, size: int, token: str) -> None:
    table.title(
        f"behind-tls: {size >> 20} MiB from the page cache through nginx with TLS, one at a time; nginx and "
        f"jobsvc share a core; {host_info.describe_placement()}; {host_info.load_average()}"
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    paths = {name: f"/{number}/api/jobs/{JOB}/download" for number, name in enumerate(BUFFERING)}
    paths[NGINX_FILE] = "/file/film.mp4"

    def one(server: Server) -> Outcome:
        return _download(server, paths[server.name], token, context, size)

    results = interleave(plan, [replace(nginx, name=name) for name in (NGINX_FILE, *BUFFERING)], one)
    rates = {name: [size / each.outcome.seconds for each in rounds] for name, rounds in results.items()}
    for name, each in rates.items():
        table.row(name, [rate / 1e9 for rate in each], " GB/s")
    cpu = {name: [each.cpu / size * GIB for each in rounds] for name, rounds in results.items()}
    for name, seconds in cpu.items():
        table.row(f"CPU of nginx and jobsvc for 1 GiB, {name}", seconds, " s")
    for name in BUFFERING:
        goal = GOAL if name == DOCUMENTED else None
        table.ratio(f"speed, {name} / {NGINX_FILE}", rates[name], rates[NGINX_FILE], goal)
        table.ratio(f"CPU, {NGINX_FILE} / {name}", cpu[NGINX_FILE], cpu[name])


def _download(server: Server, path: str, token: str, context: ssl.SSLContext, size: int) -> Outcome:
    """Download a file over a connection of its own and discard it."""
    buffer = memoryview(bytearray(BUFFER_SIZE))
    with (
        socket.create_connection(server.address) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        started_at = time.perf_counter()
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        connection.sendall(head.encode())
        data = bytes(buffer[: connection.recv_into(buffer)])
        status, _, rest = data.partition(b"\r\n\r\n")
        received = len(rest)
        while received < size and (count := connection.recv_into(buffer)):
            received += count
        seconds = time.perf_counter() - started_at
    if not status.startswith(b"HTTP/1.1 200 ") or received != size:
        raise RuntimeError(f"{server.name}: {received} bytes, {status[:200]!r}")
    outcome = Outcome()
    outcome.add(Outcome(requests=1, received=received, seconds=seconds))
    return outcome


@contextmanager
def _nginx(root: Path, scratch: Path, backend_port: int) -> Iterator[Server]:
    """Run nginx on a listening socket whose connections have the congestion control."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", scratch / "key", "-out", scratch / "certificate", "-subj", "/CN=localhost"),
        ],
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)
        port: int = listener.getsockname()[1]
        locations = "".join(
            f"location /{number}/api/ {{ proxy_pass http://jobsvc/api/; {buffering} }}\n"
            for number, buffering in enumerate(BUFFERING.values())
        )
        text = _NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",
            scratch=scratch,
            port=port,
            root=root,
            job=JOB,
            backend_port=backend_port,
            locations=locations,
        )
        with servers.nginx_at(("127.0.0.1", port), text, scratch, listener) as server:
            yield server
