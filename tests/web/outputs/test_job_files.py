"""`GET /api/jobs/{id}/files`: the list of a job's files, page by page."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import FILES, FRAMES, MEMBERS, render

LIST = "/api/jobs/job-1/files"


async def listed(service: Service, query: str = "") -> list[dict[str, Any]]:
    answer = await service.get(f"{LIST}{query}")
    assert answer.status == 200, answer
    files: list[dict[str, Any]] = answer.json()["files"]
    return files


def names(files: list[dict[str, Any]]) -> list[str]:
    return [f"{file['output']}/{file['path']}" for file in files]


async def test_all_files_are_listed_by_output_and_then_by_frame_or_path(service: Service) -> None:
    answer = (await service.get(LIST)).json()
    assert names(answer["files"]) == list(MEMBERS)
    assert [file.get("frame") for file in answer["files"]] == [*FRAMES, None, None, None, None]
    assert (answer["totalFiles"], answer["totalSize"]) == (7, sum(map(len, FILES.values())))
    assert answer["nextCursor"] is None


async def test_each_file_has_its_size_time_type_and_entity_tag(service: Service, folder: Path) -> None:
    first = (await listed(service))[0]
    assert (first["size"], first["contentType"]) == (len(FILES["output/beauty.1001.exr"]), "image/x-exr")
    download = await service.get(urljoin(LIST, first["downloadUrl"]))
    assert first["etag"] == download.headers["ETag"]
    os.utime(folder / "output" / "beauty.1001.exr", (0, 1_700_000_000.5))
    assert (await listed(service))[0]["modifiedAt"] == "2023-11-14T22:13:20.500Z"


async def test_each_download_url_leads_to_the_bytes_of_its_file(service: Service) -> None:
    for file in await listed(service):
        download = await service.get(urljoin(LIST, file["downloadUrl"]))
        assert download.status == 200
        assert download.body == FILES[MEMBERS[f"{file['output']}/{file['path']}"]]


async def test_pages_together_are_the_whole_list(service: Service) -> None:
    page = (await service.get(f"{LIST}?limit=2")).json()
    found = names(page["files"])
    while page["nextCursor"] is not None:
        page = (await service.get(f"{LIST}?limit=2&cursor={page['nextCursor']}")).json()
        found += names(page["files"])
    assert found == list(MEMBERS)


async def test_page_after_a_removed_file_begins_with_the_next_one(service: Service, folder: Path) -> None:
    cursor = (await service.get(f"{LIST}?limit=2")).json()["nextCursor"]
    (folder / "output" / "beauty.1002.exr").unlink()
    assert names(await listed(service, "?limit=9"))[1] == "beauty/beauty.1004.exr"
    assert names(await listed(service, f"?limit=1&cursor={cursor}")) == ["beauty/beauty.1004.exr"]


async def test_output_selects_the_files_of_the_named_outputs(service: Service) -> None:
    answer = (await service.get(f"{LIST}?output=preview&output=beauty")).json()
    assert names(answer["files"]) == [*list(MEMBERS)[:3], "preview/preview.mp4"]
    assert answer["totalFiles"] == 4


async def test_gaps_and_entries_that_are_left_out_are_told(service: Service, folder: Path) -> None:
    (folder / "passes" / "link").symlink_to("empty")
    os.mkfifo(folder / "passes" / "fifo")
    with open(os.fsencode(folder / "passes") + b"/\xff", "wb"):  # noqa: ASYNC230, PTH123 - a name in bytes
        pass
    answer = (await service.get(LIST)).json()
    assert (answer["missingFrames"], answer["leftOut"]) == ({"beauty": 1}, 3)
    assert names(answer["files"]) == list(MEMBERS)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?output=nothing", 404, "file-missing"),
        ("?limit=0", 400, "bad-request"),
        ("?limit=1001", 400, "bad-request"),
        ("?cursor=abc", 400, "bad-request"),
        ("?outputs=beauty", 400, "bad-request"),
    ],
)
async def test_wrong_parameters_are_named(service: Service, query: str, status: int, code: str) -> None:
    answer = await service.get(f"{LIST}{query}")
    assert (answer.status, answer.json()["code"]) == (status, code)


async def test_cursor_of_the_list_of_jobs_is_refused(serve: Serve, make_job: MakeJob) -> None:
    render(make_job)
    make_job("job-2")
    service = await serve()
    while (await service.get("/readyz", token=None)).status != 200:
        await pause()
    cursor = (await service.get("/api/jobs?limit=1")).json()["nextCursor"]
    assert cursor is not None
    assert (await service.get(f"{LIST}?cursor={cursor}")).status == 400


async def test_job_without_files_is_output_missing(serve: Serve, make_job: MakeJob) -> None:
    (make_job() / "empty").mkdir()
    make_job(status="completed", outputPath="empty/")
    service = await serve()
    answer = await service.get(LIST)
    assert (answer.status, answer.json()["code"]) == (404, "output-missing")


async def test_job_that_is_not_completed_is_409(serve: Serve, make_job: MakeJob) -> None:
    render(make_job, status="rendering")
    answer = await (await serve()).get(LIST)
    assert (answer.status, answer.json()["code"]) == (409, "job-not-completed")


async def test_job_of_another_owner_is_not_found(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    render(make_job)
    token = make_token("bert")
    answer = await (await serve()).get(LIST, token=token)
    assert (answer.status, answer.json()["code"]) == (404, "job-not-found")


async def test_job_with_output_path_alone_has_one_file(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    (file,) = await listed(await serve())
    assert (file["output"], file["path"], file["size"]) == ("main", "film.mp4", 4)


async def test_unchanged_list_is_304(service: Service) -> None:
    tag = (await service.get(LIST)).headers["ETag"]
    assert (await service.get(LIST, ("If-None-Match", tag))).status == 304


async def test_download_urls_behind_a_proxy_are_relative(service: Service) -> None:
    answer = (await service.get(LIST, ("X-Forwarded-For", "192.0.2.1"))).json()
    assert answer["files"][-1]["downloadUrl"].startswith("files/preview/preview.mp4?version=")


async def test_lists_that_are_requested_at_once_are_read_once(service: Service) -> None:
    answers = await asyncio.gather(*(service.get(LIST) for _ in range(20)))
    assert all(answer.body == answers[0].body for answer in answers)
    assert await service.metric("jobsvc_files_listed_total") < 20 * len(MEMBERS)


async def test_file_with_a_line_feed_in_its_name_has_a_url_and_a_link(service: Service, folder: Path) -> None:
    (folder / "passes" / "two\nlines").write_bytes(b"found")
    (file,) = [each for each in await listed(service) if each["path"] == "two\nlines"]
    assert (await service.get(urljoin(LIST, file["downloadUrl"]))).body == b"found"
