"""The outputs in the status of a job, over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, Serve, put
from tests.eventually import pause
from tests.programs.service_runner import Service

JOB = "/api/jobs/job-1"
OUTPUTS = [
    {"name": "beauty", "path": "output/beauty/a.####.exr"},
    {"name": "still", "path": "output/still.png", "role": "thumbnail"},
    {"name": "passes", "path": "output/passes"},
    {"name": "gone", "path": "output/gone.mp4", "role": "preview"},
]


@pytest.fixture
def folder(make_job: MakeJob) -> Path:
    folder = make_job(output=b"film", outputs=OUTPUTS)
    put(folder / "output" / "beauty" / "a.0001.exr", b"frame")
    put(folder / "output" / "still.png", b"still")
    put(folder / "output" / "passes" / "depth.exr", b"depth")
    for name in ("beauty", "passes"):
        os.utime(folder / "output" / name, (0, 1_767_225_600))
    return folder


async def outputs_of(service: Service) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = (await service.get(JOB)).json()["outputs"]
    return outputs


async def test_status_has_every_output_that_exists(serve: Serve, folder: Path) -> None:
    outputs = await outputs_of(await serve())
    urls = [output.pop("downloadUrl") for output in outputs]
    assert outputs == [
        {"name": "main", "role": "main", "kind": "file", "size": 4, "contentType": "video/mp4"},
        {"name": "beauty", "role": "data", "kind": "sequence", "modifiedAt": "2026-01-01T00:00:00.000Z"},
        {"name": "still", "role": "thumbnail", "kind": "file", "size": 5, "contentType": "image/png"},
        {"name": "passes", "role": "data", "kind": "directory", "modifiedAt": "2026-01-01T00:00:00.000Z"},
    ]
    assert [url.partition("=")[0] for url in urls] == [
        f"{JOB}/download?version",
        f"{JOB}/archive.tar?output",
        f"{JOB}/files/still?version",
        f"{JOB}/archive.tar?output",
    ]


async def test_job_with_output_path_alone_has_one_output(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    service = await serve()
    document = (await service.get(JOB)).json()
    assert document["outputs"] == [
        {
            "name": "main",
            "role": "main",
            "kind": "file",
            "downloadUrl": document["downloadUrl"],
            "size": 4,
            "contentType": "video/mp4",
        }
    ]


async def test_list_and_stream_of_all_jobs_have_no_outputs(serve: Serve, folder: Path) -> None:
    service = await serve()
    async with open_event_stream(service, "/api/events") as stream:
        assert "outputs" not in (await stream.next_named("job")).json()
    assert "outputs" not in (await service.get("/api/jobs")).json()["jobs"][0]


async def test_event_of_a_job_has_its_outputs(serve: Serve, folder: Path) -> None:
    service = await serve()
    async with open_event_stream(service, f"{JOB}/events") as stream:
        assert len((await stream.next_named("job")).json()["outputs"]) == 4


async def test_urls_of_outputs_are_relative_for_a_client_behind_a_proxy(serve: Serve, folder: Path) -> None:
    answer = await (await serve()).get(JOB, ("Via", "1.1 proxy"))
    urls = [output["downloadUrl"] for output in answer.json()["outputs"]]
    assert all(url.startswith("job-1/") for url in urls)
    assert urljoin(f"https://a.example/farm{JOB}", urls[2]).startswith(
        f"https://a.example/farm{JOB}/files/still?version="
    )


@pytest.mark.parametrize("path", ["output/passes/", "output/beauty/a.%04d.exr"])
async def test_main_output_that_is_no_file_has_a_url_without_a_version(
    serve: Serve, make_job: MakeJob, folder: Path, path: str
) -> None:
    make_job(status="completed", outputPath=path)
    document = (await (await serve()).get(JOB)).json()
    assert document["downloadUrl"] == document["outputs"][0]["downloadUrl"] == f"{JOB}/download"


@pytest.mark.parametrize("watch", ["poll", "events"])
async def test_file_added_to_a_directory_changes_the_entity_tag(
    serve: Serve, folder: Path, watch: str
) -> None:
    service = await serve(watch=watch, max_age=0.1)
    before = (await service.get(JOB)).headers["ETag"]
    assert (await service.get(JOB)).headers["ETag"] == before
    (folder / "output" / "passes" / "normal.exr").write_bytes(b"normal")
    while (await service.get(JOB)).headers["ETag"] == before:
        await pause()


async def test_output_that_appears_later_is_shown(serve: Serve, folder: Path) -> None:
    service = await serve(max_age=0.1)
    assert len(await outputs_of(service)) == 4
    put(folder / "output" / "gone.mp4", b"preview")
    while len(await outputs_of(service)) == 4:
        await pause()
    assert (await outputs_of(service))[-1]["role"] == "preview"
