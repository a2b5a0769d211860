"""A download by the real command that is killed again and again is continued, and is right in the end.

`KILLED_DOWNLOAD=2000000000,50 pytest tests/client/download/test_kills.py`: bytes of the file, and kills.
"""

from __future__ import annotations

import asyncio
import filecmp
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest

from jobsvc.client.download.source import CHUNK
from tests.clients.faulty_proxy import Exchange, FaultyProxy, faulty_proxy
from tests.conftest import MakeJob, StartProcess
from tests.programs.service_runner import PROJECT, Process

SIZE, KILLS = map(int, os.environ.get("KILLED_DOWNLOAD", "100000000,5").split(","))
SEED: Final = 18
PARALLEL: Final = 4
RATE: Final = 50e6
"""Bytes a second of each connection."""
IN_FLIGHT: Final = 1 << 20
"""Bytes of one connection that were sent and are not yet in the file, at most."""
BLOCK: Final = 1 << 20


class Killer:
    """Kills the command when the proxy has sent so many bytes in total."""

    def __init__(self, proxy: FaultyProxy, kills: int, random: Random) -> None:
        self.sent = 0
        self.process: asyncio.subprocess.Process | None = None
        self.at = sorted(random.randrange(SIZE) for _ in range(kills))
        """Bytes after which it is killed, in ascending order; those of later kills."""
        self._counted: dict[int, int] = {}
        proxy.on_sent = self._on_sent

    def _on_sent(self, exchange: Exchange) -> None:
        if not exchange.is_file:
            return
        self.sent += exchange.sent - self._counted.get(id(exchange), 0)
        self._counted[id(exchange)] = exchange.sent
        if self.at and self.sent >= self.at[0] and self.process is not None:
            self.process.kill()
            self.at.pop(0)
            self.process = None


async def start(service: Process, proxy: FaultyProxy, to: Path) -> asyncio.subprocess.Process:
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("JOBSVC_", "XDG_"))
    }
    variables |= {"JOBSVC_URL": f"http://127.0.0.1:{proxy.port}", "JOBSVC_TOKEN": service.token or ""}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobsvc", "download", "job-1", "-o", str(to), "-x", str(PARALLEL)),
        cwd=PROJECT,
        env={**variables, "HOME": str(to.parent)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def write_film(path: Path) -> None:
    """Write random bytes, so that no part can be taken for another one."""
    random = Random(SEED)  # noqa: S311 - no secret
    path.parent.mkdir()
    with path.open("wb") as file:
        for start_of_block in range(0, SIZE, BLOCK):
            file.write(random.randbytes(min(BLOCK, SIZE - start_of_block)))


def intervals(exchanges: list[Exchange]) -> Iterator[tuple[int, int]]:
    """Yield the bytes of the file that each response had sent."""
    for exchange in exchanges:
        if exchange.is_file and exchange.sent:
            begins = int((exchange.content_range or "bytes 0-").removeprefix("bytes ").partition("-")[0])
            yield begins, begins + exchange.sent


def covered(parts: Iterator[tuple[int, int]]) -> int:
    """Return how many bytes are in at least one of the intervals."""
    total = end = 0
    for begins, ends in sorted(parts):
        total += max(ends - max(begins, end), 0)
        end = max(end, ends)
    return total


@pytest.mark.alone
@pytest.mark.timeout(900)
async def test_killed_download_is_continued(
    start_process: StartProcess, make_job: MakeJob, jobs_root: Path, tmp_path: Path
) -> None:
    (jobs_root / "job-1").mkdir()
    film = jobs_root / "job-1" / "output" / "film.mp4"
    await asyncio.to_thread(write_film, film)
    make_job(status="completed", outputPath="output/film.mp4")
    service = start_process()
    proxy = FaultyProxy(service.port, rate=RATE)
    killer = Killer(proxy, KILLS, Random(SEED))  # noqa: S311 - no secret
    (to := tmp_path / "to" / "film.mp4").parent.mkdir()
    async with faulty_proxy(proxy):
        for _ in range(KILLS):
            killer.process = process = await start(service, proxy, to)
            output, said = await process.communicate()
            assert process.returncode == -9, (output, said)
            assert not to.exists()
        process = await start(service, proxy, to)
        output, said = await process.communicate()
        assert process.returncode == 0, said
    assert filecmp.cmp(film, to, shallow=False)
    assert list(to.parent.iterdir()) == [to]
    total = sum(ends - begins for begins, ends in intervals(proxy.exchanges))
    assert covered(intervals(proxy.exchanges)) == SIZE
    assert total - SIZE <= KILLS * (CHUNK + PARALLEL * IN_FLIGHT)
