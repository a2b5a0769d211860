"""curl, wget and aria2c fetch an archive that breaks off at random places, and never join two versions."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Final

import pytest

from tests.clients.cutting_proxy import cutting_proxy
from tests.conftest import MakeJob, Serve, put
from tests.programs.external_programs import needs, run
from tests.programs.service_runner import Service

FRAMES: Final = 12
FRAME_SIZE: Final = 1_000_000
TAR: Final = "/api/jobs/job-1/archive.tar"
CUTS: Final = 10
NEW: Final = b"a replaced frame"
SEEDS: Final = pytest.mark.parametrize("seed", [1, 2])


@pytest.fixture
def folder(make_job: MakeJob) -> Path:
    folder = make_job()
    for frame in range(FRAMES):
        put(folder / f"f.{frame:04d}.exr", os.urandom(FRAME_SIZE + frame))
        put(folder / "notes" / f"{frame}.txt", b"small %d" % frame)
    outputs = [
        {"name": "f", "path": "f.####.exr", "role": "main"},
        {"name": "notes", "path": "notes/"},
    ]
    return make_job(status="completed", outputs=outputs)


@pytest.fixture
async def service(serve: Serve, folder: Path) -> Service:
    return await serve()


def replace_frame(folder: Path) -> None:
    put(folder / "f.0003.exr", NEW * 10_000)


def cuts(seed: int) -> list[int]:
    """Return after how many bytes each of the first connections is cut."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    return [draw.randrange(2_000, FRAMES * FRAME_SIZE // CUTS) for _ in range(CUTS)]


def url(port: int, target: str) -> str:
    return f"http://127.0.0.1:{port}{target}"


def words(program: str, service: Service, into: Path, *more: object) -> tuple[object, ...]:
    """Return the command line of a program that continues a file."""
    bearer = f"Authorization: Bearer {service.token}"
    if program == "curl":
        return "-sS", "-f", "-C", "-", "-H", bearer, "-o", into, *more
    return "-nv", "-c", "--tries=1", "--header", bearer, "-O", into, *more


async def whole(service: Service) -> tuple[bytes, str]:
    """Return the archive, and the target with its version."""
    answer = await service.get(TAR)
    assert answer.status == 200
    assert len(answer.body) > (FRAMES - 1) * FRAME_SIZE
    tag = answer.headers["ETag"].strip('"')
    return answer.body, f"{TAR}?version={tag}"


@SEEDS
@pytest.mark.parametrize("program", [pytest.param(name, marks=needs(name)) for name in ("curl", "wget")])
async def test_archive_that_is_cut_ten_times_is_resumed(
    service: Service, tmp_path: Path, program: str, seed: int
) -> None:
    archive, target = await whole(service)
    into, sizes = tmp_path / "job.tar", [0]
    async with cutting_proxy(service.port, *cuts(seed)) as proxy:
        for _ in range(CUTS):
            ended = await run(program, *words(program, service, into), url(proxy.port, target))
            assert ended.exit_code != 0
            sizes.append(into.stat().st_size)
            assert into.read_bytes() == archive[: sizes[-1]]
        ended = await run(program, *words(program, service, into), url(proxy.port, target))
    assert (ended.exit_code, proxy.cut_count) == (0, CUTS), ended.stderr
    assert sizes == sorted(set(sizes))
    assert into.read_bytes() == archive
    lines = await service.wait_for_downloads(1 + CUTS + 1)
    assert len({line["etag"] for line in lines}) == 1


@needs("curl")
async def test_curl_resumes_with_the_entity_tag_of_its_part(service: Service, tmp_path: Path) -> None:
    archive, target = await whole(service)
    tag = f'If-Range: "{target.rpartition("=")[2]}"'
    into = tmp_path / "job.tar"
    async with cutting_proxy(service.port, *cuts(3)) as proxy:
        continued = *words("curl", service, into, "-H", tag), url(proxy.port, TAR)
        codes = [(await run("curl", *continued)).exit_code for _ in range(CUTS + 1)]
    assert (codes, proxy.cut_count) == ([18] * CUTS + [0], CUTS)
    assert into.read_bytes() == archive


@pytest.mark.parametrize("program", [pytest.param(name, marks=needs(name)) for name in ("curl", "wget")])
async def test_replaced_frame_ends_the_archive_of_a_version(
    service: Service, folder: Path, tmp_path: Path, program: str
) -> None:
    archive, target = await whole(service)
    into = tmp_path / "job.tar"
    async with cutting_proxy(service.port, 5_000_000) as proxy:
        await run(program, *words(program, service, into), url(proxy.port, target))
        part = into.read_bytes()
        assert part == archive[: len(part)] != b""
        replace_frame(folder)
        for _ in range(2):
            ended = await run(program, *words(program, service, into), url(proxy.port, target))
            assert (ended.exit_code, "412" in ended.stderr) == ({"curl": 22, "wget": 8}[program], True)
    assert into.read_bytes() == part


@needs("curl")
async def test_replaced_frame_makes_if_range_fetch_the_whole_anew(
    service: Service, folder: Path, tmp_path: Path
) -> None:
    archive, target = await whole(service)
    tag = f'If-Range: "{target.rpartition("=")[2]}"'
    into = tmp_path / "job.tar"
    async with cutting_proxy(service.port, 5_000_000) as proxy:
        continued = *words("curl", service, into, "-H", tag), url(proxy.port, TAR)
        assert (await run("curl", *continued)).exit_code == 18  # a part of the file
        part = into.read_bytes()
        replace_frame(folder)
        assert (await run("curl", *continued)).exit_code == 33  # no range came back
        assert into.read_bytes() == part == archive[: len(part)]
        into.unlink()
        assert (await run("curl", *continued)).exit_code == 0
    new, _ = await whole(service)
    assert into.read_bytes() == new != archive
    assert NEW in new


def aria(service: Service, *more: object) -> tuple[object, ...]:
    return (
        *("--no-conf", "--quiet", "-x8", "-s8", "-c", "--min-split-size=1M", "--retry-wait=0"),
        *(
            "--file-allocation=none",
            "-o",
            "job.tar",
            "--header",
            f"Authorization: Bearer {service.token}",
            *more,
        ),
    )


@needs("aria2c")
@SEEDS
async def test_aria2c_joins_the_ranges_of_eight_connections_ten_of_which_are_cut(
    serve: Serve, folder: Path, tmp_path: Path, seed: int
) -> None:
    service = await serve()
    archive, target = await whole(service)
    slow = await serve(download_rate=1_500_000)  # so that all connections are needed
    digest = f"--checksum=sha-256={hashlib.sha256(archive).hexdigest()}"
    async with cutting_proxy(slow.port, *[min(cut, 500_000) for cut in cuts(seed)]) as proxy:
        words = aria(slow, "--max-tries=20", digest, url(proxy.port, target))
        ended = await run("aria2c", *words, folder=tmp_path)
    assert (ended.exit_code, proxy.cut_count) == (0, CUTS), ended.stdout
    assert (tmp_path / "job.tar").read_bytes() == archive
    assert proxy.accepted_count >= CUTS + 8


@needs("aria2c")
async def test_aria2c_joins_nothing_to_the_archive_of_another_version(
    service: Service, folder: Path, tmp_path: Path
) -> None:
    archive, target = await whole(service)
    async with cutting_proxy(service.port, *[700_000] * 8) as proxy:
        ended = await run("aria2c", *aria(service, "--max-tries=1", url(proxy.port, target)), folder=tmp_path)
    assert ended.exit_code != 0
    replace_frame(folder)
    words = aria(service, "--max-tries=2", url(service.port, target))
    assert (await run("aria2c", *words, folder=tmp_path)).exit_code != 0
    part = (tmp_path / "job.tar").read_bytes()
    assert (tmp_path / "job.tar.aria2").exists()
    assert part
    assert all(one in {other, 0} for one, other in zip(part, archive, strict=False))
