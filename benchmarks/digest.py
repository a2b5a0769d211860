"""What a digest under way costs others: the rate and CPU of a download, and the wait for a status."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from benchmarks import farm, host_info, load_generator, servers, table
from benchmarks.interleave import Measured, Plan
from benchmarks.latency_probe import Waits, meanwhile, probe
from benchmarks.load_generator import Load, Unexpected, answer, get
from benchmarks.servers import Server

T = TypeVar("T")

GIB: Final = 1 << 30
OTHERS: Final = 200
"""Jobs whose status is asked for."""
DOWNLOADS: Final = 4
"""One after the other, of which each rate is taken: one alone is over too soon to be told from chance."""
MEASUREMENTS: Final = 5
"""How often each round has a digest computed."""

RATE: Final = table.Goal(least=0.95)
WAIT: Final = table.Goal(most=30)


def run(plan: Plan) -> None:
    """Measure and print."""
    size = int(plan.pick(GIB, GIB // 8))
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("digest", plan.scratch))
        root = scratch / "jobs"
        farm.output(root, "hot", size)
        others = farm.fill(root, OTHERS)["completed"]
        unhashed = _alike(root, size, MEASUREMENTS * (plan.rounds + 1))
        time.sleep(farm.SETTLE)
        token = servers.token(scratch)
        server = stack.enter_context(servers.jobsvc(root, scratch))
        load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 30)
        table.title(
            f"digest: {size >> 20} MiB downloaded by one client, without a digest under way and beside that "
            f"of another file, both in the page cache; {host_info.placed()}; {host_info.load_average()}"
        )
        bench = Bench(plan, server, token, unhashed)
        for drop in (True, False):
            _rates(bench, drop=drop)
        statuses = [get(f"/api/jobs/{job_id}", token) for job_id in others]
        for downloading in (False, True):
            _waits(bench, statuses, downloading=downloading)
        _alone(bench, size)


def _alike(root: Path, size: int, count: int) -> list[str]:
    """Make jobs whose outputs are one file by many names: each is hashed anew, and all fit into memory."""
    names = [f"unhashed-{number:03d}" for number in range(count)]
    first = farm.output(root, names[0], size)
    for name in names[1:]:
        output = farm.put(root, name, "completed") / "output" / "film.mp4"
        output.parent.mkdir()
        os.link(first, output)
    return names


class Bench:
    """The service, and jobs whose outputs were not hashed yet."""

    def __init__(self, plan: Plan, server: Server, token: str, unhashed: Sequence[str]) -> None:
        self.rounds = plan.rounds
        self.downloads = int(plan.pick(DOWNLOADS, 1))
        self.probed = plan.pick(2, 0.2)
        """Seconds for which statuses are asked for."""
        self._unhashed = iter(unhashed)
        self._token = token
        self.server = server
        self.download = self._get("hot")

    def in_turns(self, one: Callable[[], T]) -> tuple[list[T], list[T]]:
        """Measure without a digest under way and beside one, after a round that does not count."""
        without: list[T] = []
        beside: list[T] = []
        for number in range(self.rounds + 1):
            if number % 2:
                without.append(one())
            with self.digest():
                beside.append(one())
            if not number % 2:
                without.append(one())
        return without[1:], beside[1:]

    @contextmanager
    def digest(self) -> Iterator[None]:
        """Have a digest under way while the block runs, then wait for it; Unexpected where it came before."""
        begun = self.server.figure("digest_bytes_total")
        ask = self._get(next(self._unhashed), Range="bytes=0-0", Want_Repr_Digest="sha-256=1")
        answer(self.server.address, ask)
        load_generator.until(lambda: self.server.figure("digest_bytes_total") > begun, load_generator.SILENCE)
        yield
        if not self.server.figure("digests_waiting"):
            raise Unexpected("the digest was there before the end of what was measured beside it")
        load_generator.until(lambda: not self.server.figure("digests_waiting"), 120, pause=0.1)

    def _get(self, job_id: str, **fields: str) -> bytes:
        return get(f"/api/jobs/{job_id}/download", self._token, **fields)


def _rates(bench: Bench, *, drop: bool) -> None:
    one_client = Load(bench.server.address, [bench.download], 1, drop=drop)

    def one() -> Measured:
        before = bench.server.cpu()
        return Measured(one_client.run(each=bench.downloads), bench.server.cpu() - before)

    client = "dropping" if drop else "copying"
    without, beside = bench.in_turns(one)
    rates = [
        [each.outcome.received / each.outcome.seconds / 1e6 for each in side] for side in (without, beside)
    ]
    cpu = [[each.cpu / bench.downloads for each in side] for side in (without, beside)]
    table.row(f"{client} client, without a digest", rates[0], " MB/s")
    table.row(f"{client} client, beside one", rates[1], " MB/s")
    table.ratio(f"{client} client: speed, beside / without", rates[1], rates[0], RATE)
    table.row(f"{client} client: server CPU of a download, without", cpu[0], " s")
    table.row(f"{client} client: server CPU of both, beside", cpu[1], " s")


def _waits(bench: Bench, statuses: list[bytes], *, downloading: bool) -> None:
    def one() -> Waits:
        if not downloading:
            return probe(bench.server.address, statuses, bench.probed)
        with meanwhile(bench.server.address, statuses) as waits:
            Load(bench.server.address, [bench.download], 1).run(seconds=bench.probed)
        return waits

    beside_what = "a download" if downloading else "nothing"
    without, beside = bench.in_turns(one)
    table.row(f"p99 of status beside {beside_what}, without a digest", [each.p99 for each in without], " ms")
    table.row(f"p99 of status beside {beside_what}, and a digest", [each.p99 for each in beside], " ms", WAIT)


def _alone(bench: Bench, size: int) -> None:
    """Say what a digest takes beside nothing, its last poll included."""

    def one() -> tuple[float, float]:
        begun, before = time.perf_counter(), bench.server.cpu()
        with bench.digest():
            pass
        return time.perf_counter() - begun, bench.server.cpu() - before

    found = [one() for _ in range(bench.rounds)]
    table.row("a digest beside nothing", [size / seconds / 1e6 for seconds, _ in found], " MB/s")
    table.row("server CPU of it", [cpu for _, cpu in found], " s")
