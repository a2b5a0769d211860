"""Random faults between client and service: a download is right or raises an error, and is right in the end.

`FAULTY_DOWNLOADS=500 pytest -n 2 tests/client/download/test_random_faults.py` runs more of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import pytest

from jobsvc.client import Client, JobsvcError
from jobsvc.client.download import source
from jobsvc.client.download.local import part_file
from jobsvc.client.download.transfer import verification
from tests.client.download.fault_cases import UNSEEN, Case, make_case
from tests.clients import proxy_faults
from tests.clients.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import PROJECT, Service

DOWNLOADS: Final = int(os.environ.get("FAULTY_DOWNLOADS", "40"))
DOWNLOADS_PER_TEST: Final = 10
LARGE: Final = 70_000_000
"""Bytes of a file that is requested in several ranges by default."""
CALLS: Final = 40
"""Maximum calls for one download: more than it has faults, and a busy machine makes some fail."""
HARMLESS: Final = {
    *(proxy_faults.cut_idle, proxy_faults.delay, proxy_faults.strip_range, proxy_faults.strip_length),
    *(proxy_faults.strip_etag, proxy_faults.weaken_etag),
}
"""Faults that prevent no download even if each response has them."""
VARIES: Final = {proxy_faults.cut_body, proxy_faults.close_early, proxy_faults.replace_meanwhile}
"""Faults that prevent a download or not: each attempt can bring a few more bytes."""
FAULTS: Final = [
    (fault, verify)
    for verify in (True, False)
    for fault in dict.fromkeys(proxy_faults.FAULTS)
    if fault is not proxy_faults.stall and (verify or fault not in UNSEEN)
]
EXIT_CODES: Final = {1, 4, 6, 7}
"""Of the command after a fault."""


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Request files of 250 kB and more in parallel ranges, save the record after each 64 kB, and wait for a
    digest for a second.
    """
    monkeypatch.setattr(source, "PARALLEL_SIZE", 250_000)
    for module in (source, part_file):
        monkeypatch.setattr(module, "CHUNK", 1 << 16)
    monkeypatch.setattr(verification, "PATIENCE_S", 1.0)


@contextmanager
def open_target(case: Case, folder: Path) -> Iterator[Path | BinaryIO]:
    """Yield what to download to; a stream is of no use after an error."""
    target = case.target(folder)
    if not case.streamed:
        yield target
        return
    try:
        with target.open("wb") as stream:
            yield stream
    except JobsvcError:
        target.unlink()
        raise


async def call_client(
    case: Case, proxy: FaultyProxy, service: Service, folder: Path, *, timeout_s: float = 1.0
) -> bool:
    """Download once; return whether it succeeded. Fail if any file is wrong."""

    def download() -> None:
        url, retries = f"http://127.0.0.1:{proxy.port}", case.random.choice((0, 1, 3))
        client = Client(url, service.token, timeout=timeout_s, retries=retries)
        with client, open_target(case, folder) as to:
            client.download(case.job_id, to, verify=case.verify, archive=case.archive, exists="overwrite")

    try:
        await asyncio.to_thread(download)
    except JobsvcError:
        case.check(folder, complete=False)
        return False
    case.check(folder, complete=True)
    return True


async def run_command(case: Case, proxy: FaultyProxy, service: Service, folder: Path) -> bool:
    """Run `jobsvc download`; return whether it succeeded. Fail if any file is wrong."""
    words = ["download", case.job_id, "-o", str(case.target(folder)), "--overwrite"]
    words += [] if case.verify else ["--no-verify"]
    words += [] if case.archive is None else ["--archive", case.archive]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobsvc", *words),
        cwd=PROJECT,
        env=os.environ
        | {"JOBSVC_URL": f"http://127.0.0.1:{proxy.port}", "JOBSVC_TOKEN": service.token or ""},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert b"Traceback" not in said, said.decode()
    assert process.returncode in {0, *EXIT_CODES}, said.decode()
    case.check(folder, complete=process.returncode == 0)
    return process.returncode == 0


@pytest.mark.usefixtures("small_limits")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, DOWNLOADS, DOWNLOADS_PER_TEST))
async def test_download_is_right_in_the_end(
    first: int, serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    service = await serve()
    for seed in range(first, min(first + DOWNLOADS_PER_TEST, DOWNLOADS)):
        await download_until_right(make_case(seed, make_job), service, tmp_path / f"to-{seed}")


async def test_large_file_is_right_in_the_end(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    case = make_case(0, make_job, kind="file")
    case.write("film.mp4", LARGE)
    await download_until_right(case, await serve(), tmp_path / "to")


async def download_until_right(case: Case, service: Service, folder: Path) -> None:
    await asyncio.to_thread(folder.mkdir)
    async with faulty_proxy(case.proxy(service.port)) as proxy:
        for _ in range(CALLS):
            if await call_client(case, proxy, service, folder):
                return
    pytest.fail(f"seed {case.seed}: not whole after {CALLS} calls")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(max(DOWNLOADS // 20, 1)))
async def test_command_ends_with_exit_code_0_only_if_the_file_is_right(
    seed: int, serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    """Without stalls: the command waits for 30 s."""
    service = await serve()
    case = make_case(seed, make_job)
    (folder := tmp_path / "to").mkdir()
    async with faulty_proxy(case.proxy(service.port, proxy_faults.stall)) as proxy:
        for _ in range(CALLS):
            if await run_command(case, proxy, service, folder):
                return
    pytest.fail(f"not whole after {CALLS} runs")


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize(("fault", "verify"), FAULTS)
async def test_fault_of_every_response_for_a_file_is_an_error_unless_it_is_harmless(
    fault: Fault,
    verify: bool,  # noqa: FBT001 - a parameter of the test
    serve: Serve,
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault in HARMLESS:
        monkeypatch.setattr(verification, "PATIENCE_S", 30.0)
    case = make_case(1, make_job, kind="file")
    case.verify = verify
    case.write("film.mp4", 700_000)
    service = await serve()
    (folder := tmp_path / "to").mkdir()
    always = [proxy_faults.only_for_files(fault)]
    async with faulty_proxy(FaultyProxy(service.port, always=always, replace_output=case.replace)) as proxy:
        succeeded = await call_client(case, proxy, service, folder, timeout_s=30)
    harmless = HARMLESS if verify else HARMLESS | {proxy_faults.strip_digest}
    assert succeeded == (fault in harmless) or fault in VARIES
