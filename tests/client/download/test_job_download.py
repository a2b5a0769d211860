"""Downloads of whole jobs from the real service."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobsvc.client import DownloadError, FileExists, NotReady, Progress
from jobsvc.client.download.local.part_file import PartFile, part_paths
from jobsvc.client.download.source import file_source
from tests.client.download.job_downloads import client, content, download, make_sequence, make_two_outputs
from tests.conftest import MakeJob, Serve, put
from tests.programs.service_runner import Service

FILM = os.urandom(100_000)


async def test_one_file_is_written_to_its_target(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    (result,) = await download(await serve(), tmp_path / "to" / "title.mp4")
    assert content(tmp_path / "to") == {"title.mp4": FILM}
    assert result.path == tmp_path / "to" / "title.mp4"
    assert (result.size, result.sha256) == (len(FILM), hashlib.sha256(FILM).hexdigest())


async def test_one_file_is_written_into_a_directory(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    await download(await serve(), f"{tmp_path}/to/")
    assert content(tmp_path / "to") == {"film.mp4": FILM}


async def test_modification_time_is_that_of_the_service(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(output=FILM)
    os.utime(job / "output/film.mp4", ns=(0, 1_600_000_000_123_000_000))
    await download(await serve(), tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").stat().st_mtime_ns == 1_600_000_000_123_000_000


async def test_existing_target_is_an_error(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    (tmp_path / "film.mp4").write_bytes(b"mine")
    with pytest.raises(FileExists):
        await download(await serve(), tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes() == b"mine"


async def test_existing_target_is_skipped(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    (tmp_path / "film.mp4").write_bytes(b"mine")
    seen: list[Progress] = []
    (result,) = await download(await serve(), tmp_path / "film.mp4", exists="skip", progress=seen.append)
    assert result.skipped
    assert seen == [Progress("job-1", "film.mp4", 0, 0, 1, 1, "done")]
    assert (tmp_path / "film.mp4").read_bytes() == b"mine"


async def test_existing_target_is_overwritten(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    (tmp_path / "film.mp4").write_bytes(b"mine")
    await download(await serve(), tmp_path / "film.mp4", exists="overwrite")
    assert (tmp_path / "film.mp4").read_bytes() == FILM


async def test_other_name_is_chosen(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    to = tmp_path / "to"
    to.mkdir()
    (to / "film.mp4").write_bytes(b"mine")
    (to / "film-1.mp4").write_bytes(b"mine")
    (result,) = await download(await serve(), to, exists="rename")
    assert result.path == to / "film-2.mp4"
    assert content(to) == {"film.mp4": b"mine", "film-1.mp4": b"mine", "film-2.mp4": FILM}


async def test_sequence_is_written_below_the_directory(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    frames = make_sequence(make_job, 300)
    results = await download(await serve(), tmp_path / "to")
    assert content(tmp_path / "to") == frames
    assert [result.path.name for result in results] == sorted(frames)
    assert all(result.sha256 is not None for result in results)


async def test_several_outputs_have_directories(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    files = make_two_outputs(make_job)
    await download(await serve(), tmp_path / "to")
    assert content(tmp_path / "to") == files


async def test_only_the_chosen_output_is_downloaded(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    files = make_two_outputs(make_job)
    await download(await serve(), tmp_path / "to", output="notes")
    expected = {
        name.removeprefix("notes/"): data for name, data in files.items() if name.startswith("notes/")
    }
    assert content(tmp_path / "to") == expected


async def test_files_of_an_earlier_run_are_left_as_they_are(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    frames = make_sequence(make_job, 5)
    service = await serve()
    await download(service, tmp_path / "to")
    (tmp_path / "to" / "beauty.0003.exr").unlink()
    results = await download(service, tmp_path / "to")
    assert [result.skipped for result in results] == [True, True, False, True, True]
    assert content(tmp_path / "to") == frames


class Downloaded(NamedTuple):
    """Two frames that were downloaded before."""

    service: Service
    to: Path
    frames: dict[str, bytes]


@pytest.fixture
async def downloaded(serve: Serve, make_job: MakeJob, tmp_path: Path) -> Downloaded:
    frames = make_sequence(make_job, 2)
    service, to = await serve(), tmp_path / "to"
    await download(service, to)
    return Downloaded(service, to, frames)


@pytest.mark.parametrize("etag", [None, '"older"'])
async def test_part_file_is_deleted_if_the_file_is_there(downloaded: Downloaded, etag: str | None) -> None:
    """Another program may have copied it: a part of this version, or of an older one, would stay forever."""
    service, to, frames = downloaded
    with client(service) as own:
        file = await asyncio.to_thread(lambda: next(iter(own.files("job-1"))))
    source = file_source(file)
    part = PartFile(part_paths(to / file.path), source._replace(etag=etag or source.etag))
    os.pwrite(part.fileno(), b"part", 0)
    part.add(0, 4)
    part.suspend()
    assert len(content(to)) == 4
    await download(service, to)
    assert content(to) == frames


async def test_part_file_that_cannot_be_deleted_is_no_error(
    downloaded: Downloaded,
) -> None:
    service, to, frames = downloaded
    (to / "beauty.0001.exr.part").symlink_to("nothing")
    (to / "beauty.0002.exr.part").mkdir()
    results = await download(service, to)
    assert [result.skipped for result in results] == [True, True]
    assert content(to) == frames


async def test_empty_part_file_is_deleted_if_the_file_is_there(
    downloaded: Downloaded,
) -> None:
    service, to, frames = downloaded
    (to / "beauty.0001.exr.part").touch()
    await download(service, to)
    assert content(to) == frames


async def test_part_file_of_another_program_stays_if_the_file_is_there(
    downloaded: Downloaded,
) -> None:
    service, to, _ = downloaded
    (to / "beauty.0001.exr.part").write_bytes(b"of a browser")
    await download(service, to)
    assert (to / "beauty.0001.exr.part").read_bytes() == b"of a browser"


async def test_file_that_only_looks_the_same_is_an_error(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_sequence(make_job, 5)
    service = await serve()
    await download(service, tmp_path / "to")
    frame = tmp_path / "to" / "beauty.0003.exr"
    status = frame.stat()
    frame.write_bytes(bytes(status.st_size))
    os.utime(frame, ns=(0, status.st_mtime_ns))
    with pytest.raises(FileExists, match=r"beauty\.0003\.exr"):
        await download(service, tmp_path / "to")


async def test_unfinished_job_is_not_ready(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(status="rendering")
    with pytest.raises(NotReady):
        await download(await serve(), tmp_path / "film.mp4")


async def test_last_progress_says_done(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    frames = make_sequence(make_job, 20)
    seen: list[Progress] = []
    await download(await serve(), tmp_path / "to", progress=seen.append)
    total = sum(map(len, frames.values()))
    assert seen[-1]._replace(name="") == Progress("job-1", "", total, total, 20, 20, "done")


async def test_file_with_the_name_of_a_part_file(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    files = {name: os.urandom(5000) for name in ("a", "a.part", "a.part.json", "a.part.part")}
    job = make_job(
        status="completed",
        outputs=[{"name": "main", "role": "main", "kind": "directory", "path": "out"}],
    )
    for name, data in files.items():
        put(job / "out" / name, data)
    await download(await serve(), tmp_path / "to")
    assert content(tmp_path / "to") == files


async def test_full_disk_keeps_the_part_file(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 65_536:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    make_job(output=FILM)
    service = await serve()
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "open", lambda part, mode: FullDisk(part.paths.part, mode))
        with pytest.raises(DownloadError, match="disk is full"):
            await download(service, tmp_path / "film.mp4")
    (result,) = await download(service, tmp_path / "film.mp4")
    assert 0 < result.resumed_from <= 65_536
    assert (tmp_path / "film.mp4").read_bytes() == FILM


async def test_target_directory_that_is_a_file(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_sequence(make_job, 2)
    (tmp_path / "to").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="cannot be created"):
        await download(await serve(), tmp_path / "to")
