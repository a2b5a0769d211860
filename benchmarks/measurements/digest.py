"""What a digest in progress costs others: rate and CPU of a download, and latency of status requests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.harness import farm, host_info, load_generator, servers, table
from benchmarks.harness.interleave import Measurement, Plan
from benchmarks.harness.latency_probe import Latencies, probe, probe_meanwhile
from benchmarks.harness.load_generator import Load, UnexpectedAnswer, answer, get
from benchmarks.harness.servers import Server

T = TypeVar("T")

GIB: Final = 1 << 30
OTHER_JOBS: Final = 200
"""Jobs whose status is requested."""
DOWNLOADS_PER_ROUND: Final = 4
"""Downloads one after the other, of which the rate is taken: a single one is too short to be significant."""
DIGESTS_PER_ROUND: Final = 5
"""How many digests each round computes."""

RATE_GOAL: Final = table.Goal(at_least=0.95)
LATENCY_GOAL_MS: Final = table.Goal(at_most=30)


def run(plan: Plan) -> None:
    """Measure and print."""
    size = int(plan.pick(GIB, GIB // 8))
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("digest", plan.scratch))
        root = scratch / "jobs"
        farm.output(root, "hot", size)
        others = farm.fill(root, OTHER_JOBS)["completed"]
        unhashed = _make_jobs_sharing_one_file(root, size, DIGESTS_PER_ROUND * (plan.rounds + 1))
        time.sleep(farm.STABLE_AFTER_S)
        token = servers.token(scratch)
        server = stack.enter_context(servers.jobsvc(root, scratch))
        load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 30)
        table.title(
            f"digest: {size >> 20} MiB downloaded by one client, without and with the digest of another "
            f"file in progress, both in the page cache; "
            f"{host_info.describe_placement()}; {host_info.load_average()}"
        )
        bench = Bench(plan, server, token, unhashed)
        for drop in (True, False):
            _measure_rates(bench, drop=drop)
        statuses = [get(f"/api/jobs/{job_id}", token) for job_id in others]
        for downloading in (False, True):
            _measure_latencies(bench, statuses, downloading=downloading)
        _measure_digest_alone(bench, size)


def _make_jobs_sharing_one_file(root: Path, size: int, count: int) -> list[str]:
    """Create jobs whose outputs are hard links to one file: each is hashed again, and all fit into memory."""
    names = [f"unhashed-{number:03d}" for number in range(count)]
    first = farm.output(root, names[0], size)
    for name in names[1:]:
        output = farm.put(root, name, "completed") / "output" / "film.mp4"
        output.parent.mkdir()
        os.link(first, output)
    return names


class Bench:
    """The service, and jobs whose outputs have not been hashed yet."""

    def __init__(self, plan: Plan, server: Server, token: str, unhashed: Sequence[str]) -> None:
        self.rounds = plan.rounds
        self.downloads = int(plan.pick(DOWNLOADS_PER_ROUND, 1))
        self.probe_seconds = plan.pick(2, 0.2)
        """Seconds for which statuses are requested."""
        self._unhashed = iter(unhashed)
        self._token = token
        self.server = server
        self.download = self._get("hot")

    def with_and_without_digest(self, one: Callable[[], T]) -> tuple[list[T], list[T]]:
        """Measure without and with a digest in progress, after a round that does not count."""
        without: list[T] = []
        with_digest: list[T] = []
        for number in range(self.rounds + 1):
            if number % 2:
                without.append(one())
            with self.digest_running():
                with_digest.append(one())
            if not number % 2:
                without.append(one())
        return without[1:], with_digest[1:]

    @contextmanager
    def digest_running(self) -> Iterator[None]:
        """Compute a digest during the block, then wait for it; UnexpectedAnswer if it was finished before."""
        bytes_before = self.server.metric("digest_bytes_total")
        ask = self._get(next(self._unhashed), Range="bytes=0-0", Want_Repr_Digest="sha-256=1")
        answer(self.server.address, ask)
        load_generator.until(
            lambda: self.server.metric("digest_bytes_total") > bytes_before, load_generator.TIMEOUT_S
        )
        yield
        if not self.server.metric("digests_waiting"):
            raise UnexpectedAnswer("the digest was finished before the end of the measurement")
        load_generator.until(lambda: not self.server.metric("digests_waiting"), 120, pause=0.1)

    def _get(self, job_id: str, **fields: str) -> bytes:
        return get(f"/api/jobs/{job_id}/download", self._token, **fields)


def _measure_rates(bench: Bench, *, drop: bool) -> None:
    one_client = Load(bench.server.address, [bench.download], 1, drop=drop)

    def one() -> Measurement:
        before = bench.server.cpu()
        return Measurement(one_client.run(each=bench.downloads), bench.server.cpu() - before)

    client = "dropping" if drop else "copying"
    without, with_digest = bench.with_and_without_digest(one)
    rates = [
        [each.outcome.received / each.outcome.seconds / 1e6 for each in side]
        for side in (without, with_digest)
    ]
    cpu = [[each.cpu / bench.downloads for each in side] for side in (without, with_digest)]
    table.row(f"{client} client, without a digest", rates[0], " MB/s")
    table.row(f"{client} client, with one", rates[1], " MB/s")
    table.ratio(f"{client} client: speed, with / without", rates[1], rates[0], RATE_GOAL)
    table.row(f"{client} client: server CPU of a download, without", cpu[0], " s")
    table.row(f"{client} client: server CPU of both, with one", cpu[1], " s")


def _measure_latencies(bench: Bench, statuses: list[bytes], *, downloading: bool) -> None:
    def one() -> Latencies:
        if not downloading:
            return probe(bench.server.address, statuses, bench.probe_seconds)
        with probe_meanwhile(bench.server.address, statuses) as waits:
            Load(bench.server.address, [bench.download], 1).run(seconds=bench.probe_seconds)
        return waits

    other_work = "a download" if downloading else "idle time"
    without, with_digest = bench.with_and_without_digest(one)
    table.row(f"p99 of status during {other_work}, without a digest", [each.p99 for each in without], " ms")
    table.row(
        f"p99 of status during {other_work}, and a digest",
        [each.p99 for each in with_digest],
        " ms",
        LATENCY_GOAL_MS,
    )


def _measure_digest_alone(bench: Bench, size: int) -> None:
    """Measure a digest alone, including the last poll."""

    def one() -> tuple[float, float]:
        started_at, before = time.perf_counter(), bench.server.cpu()
        with bench.digest_running():
            pass
        return time.perf_counter() - started_at, bench.server.cpu() - before

    results = [one() for _ in range(bench.rounds)]
    table.row("a digest alone", [size / seconds / 1e6 for seconds, _ in results], " MB/s")
    table.row("server CPU of it", [cpu for _, cpu in results], " s")
