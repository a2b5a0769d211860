"""Whole files and status requests through nginx, HAProxy and Caddy with TLS, each as deploy/ configures it.

BBR paces connections on loopback, and hides the differences. This network namespace has another congestion
control: `unshare --net sh -c "ip link set lo up; sysctl -qw net.ipv4.tcp_congestion_control=reno; python -m
benchmarks behind-tls"`.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.harness import farm, host_info, process, servers, table
from benchmarks.harness.interleave import Plan, interleave
from benchmarks.harness.load_generator import Load, Outcome, get
from benchmarks.harness.servers import Server
from tests.deploy.reverse_proxies import FOLDER_VARIABLES, PROGRAMS, command_of, write_configuration
from tests.programs.certificates import create_certificate
from tests.programs.external_programs import SEARCH_PATH

JOB: Final = "big-0001"
GIB: Final = 1 << 30
BUFFER_SIZE: Final = 256 * 1024
"""Bytes of the client's buffer."""
CONNECTIONS: Final = 32
SLICE_S: Final = 0.5
"""Seconds of status requests to a server before the next has its turn."""
PROXIES: Final = ("nginx", "HAProxy", "Caddy")
OWN_FILE: Final = {"nginx": "nginx", "HAProxy": "nginx", "Caddy": "Caddy"}
"""By proxy: the one whose own file it is compared with. HAProxy serves none."""
DIRECT: Final = "jobsvc, without TLS"
GOAL: Final = table.Goal(at_least=0.9)
"""Relative to the speed of the own file."""

_FILE_ROUTES: Final = {
    "nginx": ("    location / {", "    location /file/ {{ alias {folder}/; }}\n    location / {{"),
    "Caddy": (
        "\thandle {",
        "\thandle_path /file/* {{\n\t\troot * {folder}\n\t\tfile_server\n\t}}\n\thandle {{",
    ),
}
"""What serves the file itself: what to replace in a configuration, and by what."""
_AS_DEBIAN: Final = (
    "\nhttp {",
    "\nhttp { sendfile on; tcp_nopush on; default_type application/octet-stream;",
)


@dataclass(frozen=True, slots=True)
class _ProxiedServer(Server):
    """A proxy in front of another server, or its own file."""

    backend: Server | None = None
    is_file: bool = False

    def cpu(self) -> float:
        """Return the CPU seconds that both have used."""
        return Server.cpu(self) + (self.backend.cpu() if self.backend else 0.0)


def run(plan: Plan) -> None:
    """Measure and print."""
    names = [name for name in PROXIES if shutil.which(PROGRAMS[name], path=SEARCH_PATH)]
    for name in set(PROXIES) - set(names):
        table.note(f"{name} is not on the PATH")
    size = int(plan.pick(GIB, GIB // 8))
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("behind-tls", plan.scratch))
        file = farm.output(scratch / "jobs", JOB, size)
        token = servers.token(scratch)
        control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text("utf-8").strip()
        table.title(
            f"behind-tls: {size >> 20} MiB from the page cache with TLS, one at a time; {control}; "
            f"{host_info.load_average()}"
        )
        with process.on_cores(host_info.all_cores()), ExitStack() as unpinned:
            table.note("the proxy, jobsvc and the client run where the kernel places them")
            _, proxies = _start(unpinned, names, scratch, file, host_info.all_cores())
            _compare_files(plan, proxies, size, token)
        table.note(f"the proxy and jobsvc share a core; {host_info.describe_placement()}")
        ours, proxies = _start(stack, names, scratch, file, host_info.cores()[0])
        _compare_files(plan, proxies, size, token)
        _compare_polls(plan, ours, proxies, token)


def _start(
    stack: ExitStack, names: Sequence[str], scratch: Path, file: Path, cores: frozenset[int]
) -> tuple[Server, dict[str, _ProxiedServer]]:
    """Run jobsvc over the farm of a file, and the proxies in front of it."""
    ours = stack.enter_context(servers.jobsvc(scratch / "jobs", scratch, cores=cores))
    return ours, {name: stack.enter_context(_proxy(name, scratch, file, ours, cores)) for name in names}


def _compare_files(plan: Plan, proxies: dict[str, _ProxiedServer], size: int, token: str) -> None:
    own = {
        name: replace(proxies[name], name=f"own file of {name}", backend=None, is_file=True)
        for name in _FILE_ROUTES
        if name in proxies
    }
    context = _context()
    results = interleave(
        plan, [*own.values(), *proxies.values()], lambda server: _download(server, token, context, size)
    )
    rates = {name: [size / each.outcome.seconds for each in rounds] for name, rounds in results.items()}
    for name, each in rates.items():
        table.row(name, [rate / 1e9 for rate in each], " GB/s")
    for name, rounds in results.items():
        table.row(f"server CPU for 1 GiB, {name}", [each.cpu / size * GIB for each in rounds], " s")
    for name in proxies:
        if (other := own.get(OWN_FILE[name])) is not None:
            table.ratio(f"speed, {name} / {other.name}", rates[name], rates[other.name], GOAL)


def _compare_polls(plan: Plan, ours: Server, proxies: dict[str, _ProxiedServer], token: str) -> None:
    table.title(f"status requests on {CONNECTIONS} keep-alive connections, slices of {SLICE_S} s")
    context, requests, seeds = _context(), [get(f"/api/jobs/{JOB}", token)], count()

    def poll(server: Server) -> Outcome:
        tls = context if isinstance(server, _ProxiedServer) else None
        load = Load(server.address, requests, CONNECTIONS, drop=False, seed=next(seeds), tls=tls)
        return load.run(seconds=SLICE_S)

    direct = replace(ours, name=DIRECT)
    slices = round(plan.pick(3, 1) / SLICE_S)
    results = interleave(plan, [direct, *proxies.values()], poll, slices)
    rates = {name: [each.outcome.rate for each in rounds] for name, rounds in results.items()}
    for name, rounds in results.items():
        table.row(f"{name}: requests", rates[name], "/s")
        table.row(f"{name}: server CPU a request", [each.cpu_micros for each in rounds], " us")
    for name in proxies:
        table.ratio(f"requests, {name} / {DIRECT}", rates[name], rates[DIRECT])
    busiest = max(median(each.load_cpu_percent for each in rounds) for rounds in results.values())
    table.note(f"the load used at most {busiest:.0f} % of its core")


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _download(server: _ProxiedServer, token: str, context: ssl.SSLContext, size: int) -> Outcome:
    """Download a file over a connection of its own and discard it."""
    path = "/file/film.mp4" if server.is_file else f"/api/jobs/{JOB}/download"
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
def _proxy(
    name: str, scratch: Path, file: Path, backend: Server, cores: frozenset[int]
) -> Iterator[_ProxiedServer]:
    """Run a proxy with the configuration of deploy/; both replicas are one server."""
    folder = scratch / name
    folder.mkdir(exist_ok=True)
    create_certificate(folder)
    port = servers.free_port()
    path = write_configuration(name, port, [backend.address[1]] * 2, folder)
    if name in _FILE_ROUTES:
        before, after = _FILE_ROUTES[name]
        text = path.read_text("utf-8").replace(before, after.format(folder=file.parent), 1)
        path.write_text(text.replace(*_AS_DEBIAN), "utf-8")
    variables = [f"{variable}={folder}" for variable in FOLDER_VARIABLES]
    command = ["env", f"PATH={SEARCH_PATH}", *variables, *command_of(name, folder), str(path)]
    with servers.running_at(name, ("127.0.0.1", port), command, folder, cores) as alone:
        yield _ProxiedServer(name, alone.address, alone.process, alone.log, backend)
