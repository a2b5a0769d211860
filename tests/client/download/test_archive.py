"""Archives of a job, from the real service."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from jobsvc.client import Corrupt, FileExists, NotReady
from jobsvc.client.download import source
from tests.client.download.job_downloads import content, download, make_sequence, make_two_outputs, names
from tests.clients.faulty_proxy import Answer, Exchange, FaultyProxy, faulty_proxy
from tests.clients.proxy_faults import flip_byte
from tests.conftest import MakeJob, Serve


async def test_tar_has_all_files(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    files = make_two_outputs(make_job)
    (result,) = await download(await serve(), f"{tmp_path}/to/", archive="tar")
    assert result.path == tmp_path / "to" / "job-1.tar"
    assert content(tmp_path / "to").keys() == {"job-1.tar"}
    with tarfile.open(result.path) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert content(tmp_path / "unpacked") == files


async def test_zip_has_all_files(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    files = make_two_outputs(make_job)
    (result,) = await download(await serve(), tmp_path / "all.zip", archive="zip")
    with zipfile.ZipFile(result.path) as unpacked:
        assert {name: unpacked.read(name) for name in unpacked.namelist()} == files


async def test_archive_of_one_output(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_two_outputs(make_job)
    (result,) = await download(await serve(), tmp_path / "film.tar", archive="tar", output="film")
    with tarfile.open(result.path) as tar:
        assert tar.getnames() == ["film/title.mp4"]


async def test_archive_over_several_connections(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PARALLEL_SIZE", 1)
    monkeypatch.setattr(source, "CHUNK", 1000)
    frames = make_sequence(make_job, 20)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port)) as proxy:
        await download(service, tmp_path / "all.tar", port=proxy.port, archive="tar")
        assert sum(each.content_range is not None for each in proxy.exchanges) == 4
    with tarfile.open(tmp_path / "all.tar") as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert content(tmp_path / "unpacked" / "beauty") == frames


@pytest.mark.parametrize("kind", ["tar", "zip"])
async def test_wrong_byte_is_found(kind: str, serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=bytes(10_000))
    service = await serve()
    proxy = FaultyProxy(service.port, always=[flip_byte])
    async with faulty_proxy(proxy):
        with pytest.raises(Corrupt, match=r"[^.]\.$"):
            await download(service, tmp_path / "all", port=proxy.port, archive=kind)
    assert not names(tmp_path, "all*")


async def test_archive_is_downloaded_again_after_a_wrong_byte(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=bytes(10_000))
    service = await serve()

    sent: list[str] = []

    async def flip_in_first(exchange: Exchange) -> Answer:
        if exchange.request.first_line.startswith("GET") and exchange.is_file:
            sent.append(exchange.target)
        return await (flip_byte(exchange) if len(sent) == 1 else exchange.forward())

    proxy = FaultyProxy(service.port, always=[flip_in_first])
    async with faulty_proxy(proxy):
        await download(service, tmp_path / "all.tar", port=proxy.port, archive="tar")
    assert len(sent) == 2


async def test_existing_archive_is_an_error(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=b"film")
    (tmp_path / "all.tar").write_bytes(b"mine")
    with pytest.raises(FileExists):
        await download(await serve(), tmp_path / "all.tar", archive="tar")


async def test_unfinished_job_has_no_archive(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(status="rendering")
    with pytest.raises(NotReady):
        await download(await serve(), tmp_path / "all.tar", archive="tar")
