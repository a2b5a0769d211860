"""Job directories on sshfs, which assigns inode numbers at lookup."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobsvc.settings import Settings
from jobsvc.storage.files.client_version import client_version
from tests.conftest import MakeToken, job_maker
from tests.eventually import pause, until
from tests.programs.service_runner import Service, service_in_loop
from tests.programs.sshfs import Sshfs, needs_sshfs

pytestmark = [needs_sshfs, pytest.mark.timeout(120)]

FILM = bytes(range(256)) * 4096


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[tuple[Sshfs, Path]]:
    real = tmp_path / "real"
    real.mkdir()
    make_job = job_maker(real)
    for number in range(20):  # read in another order, they get other numbers
        make_job(f"other-{number}", status="rendering")
    film = make_job(output=FILM) / "output/film.mp4"
    os.utime(film, (1_000_000_000, 1_000_000_000))
    mount = Sshfs(tmp_path / "ssh", real)
    with mount.served():
        yield mount, film


async def ready(service: Service) -> None:
    while (await service.get("/readyz", token=None)).status != 200:
        await pause()


async def test_etag_survives_a_remount_and_a_range_with_it_is_partial_content(
    farm: tuple[Sshfs, Path], state_dir: Path, make_token: MakeToken
) -> None:
    mount, _film = farm
    token = make_token()
    settings = Settings(mount.path, state_dir=state_dir, port=0, shutdown_grace=0.5)
    with mount.mounted():
        async with service_in_loop(settings, token) as service:
            await ready(service)
            first = (await service.download("job-1")).headers["ETag"]
            inode = (mount.path / "job-1/output/film.mp4").stat().st_ino
    with mount.mounted():
        for path in sorted(mount.path.iterdir(), reverse=True):
            os.listdir(path)  # noqa: PTH208 - for its effect
        assert (mount.path / "job-1/output/film.mp4").stat().st_ino != inode
        async with service_in_loop(settings, token) as service:
            await ready(service)
            answer = await service.download("job-1", ("If-Range", first), ("Range", "bytes=1000-"))
            assert (answer.status, answer.headers["ETag"]) == (206, first)
            assert answer.body == FILM[1000:]


async def test_digest_survives_a_remount(
    farm: tuple[Sshfs, Path], state_dir: Path, make_token: MakeToken
) -> None:
    mount, _film = farm
    token = make_token()
    settings = Settings(mount.path, state_dir=state_dir, port=0, shutdown_grace=0.5)
    digest_field = ("Want-Repr-Digest", "sha-256=1")
    digest = None
    with mount.mounted():
        async with service_in_loop(settings, token) as service:
            await ready(service)
            while digest is None:
                digest = (await service.download("job-1", digest_field)).headers.get("Repr-Digest")
            saved = state_dir / "digests.jsonl"
            await until(lambda: saved.exists() and saved.stat().st_size)
    with mount.mounted():
        for path in sorted(mount.path.iterdir(), reverse=True):
            os.listdir(path)  # noqa: PTH208 - for its effect
        async with service_in_loop(settings, token) as service:
            await ready(service)
            assert (await service.download("job-1", digest_field)).headers["Repr-Digest"] == digest


async def test_replaced_output_has_another_etag(farm: tuple[Sshfs, Path]) -> None:
    mount, film = farm
    with mount.mounted("attr_timeout=0", "dir_cache=no"):
        seen = mount.path / "job-1/output/film.mp4"
        before = client_version(seen.stat())
        film.write_bytes(FILM[::-1])
        assert client_version(seen.stat()) != before
