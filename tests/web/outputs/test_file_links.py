"""Download links to single files of outputs and to archives, and links that a browser shows."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urljoin

import orjson
import pytest

from tests.clients.raw_http import Answer
from tests.conftest import MakeJob, Serve, put
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import FILES, MEMBERS, render
from tests.web.outputs.test_archive import unpack

LINKS = "/api/jobs/job-1/download-links"


async def create(service: Service, **members: object) -> Answer:
    return await service.ask("POST", LINKS, body=orjson.dumps(members))


async def link(service: Service, **members: object) -> str:
    answer = await create(service, **members)
    assert answer.status == 201, answer
    return urljoin(LINKS, str(answer.json()["url"]))


@pytest.mark.parametrize(
    ("file", "path", "end"),
    [
        ("beauty/beauty.1001.exr", "output/beauty.1001.exr", "/files/beauty/beauty.1001.exr"),
        ("passes/depth/z 1.exr", "passes/depth/z 1.exr", "/files/passes/depth/z%201.exr"),
        ("preview", "preview.mp4", "/files/preview/preview.mp4"),
    ],
)
async def test_link_to_a_file_ends_in_its_name_and_needs_no_token(
    service: Service, file: str, path: str, end: str
) -> None:
    url = await link(service, file=file)
    assert url.partition("?")[0].endswith(end)
    answer = await service.get(url, token=None)
    assert (answer.status, answer.body) == (200, FILES[path])


async def test_link_to_an_archive_has_all_files(service: Service) -> None:
    url = await link(service, archive="tar")
    assert url.startswith("/api/jobs/job-1/archive.tar?version=")
    assert list(unpack((await service.get(url, token=None)).body)) == list(MEMBERS)


async def test_link_to_the_main_output_of_frames_is_their_archive(service: Service) -> None:
    url = await link(service)
    assert url.startswith("/api/jobs/job-1/download/job-1.tar?version=")
    assert list(unpack((await service.get(url, token=None)).body)) == list(MEMBERS)[:3]


@pytest.mark.parametrize("members", [{"file": "beauty/beauty.1001.exr"}, {"archive": "tar"}, {}])
async def test_link_to_replaced_files_is_412(service: Service, folder: Path, members: dict[str, str]) -> None:
    url = await link(service, **members)
    put(folder / "output" / "beauty.1001.exr", b"again")
    answer = await service.get(url, ("Range", "bytes=100-"), token=None)
    assert (answer.status, answer.json()["code"]) == (412, "output-replaced")


async def test_link_to_one_file_opens_no_other(service: Service) -> None:
    url = await link(service, file="beauty/beauty.1001.exr")
    for other in (url.replace("1001", "1002"), url.replace("files/beauty/beauty.1001.exr", "archive.tar")):
        assert (await service.get(other, token=None)).status == 401


async def test_link_to_an_archive_allows_no_other_selection(service: Service) -> None:
    url = await link(service, archive="tar")
    assert (await service.get(f"{url}&output=beauty", token=None)).status == 401


async def test_inline_link_lets_a_browser_show_the_file_in_a_sandbox(service: Service) -> None:
    answer = await service.get(await link(service, file="preview", inline=True), token=None)
    assert answer.headers["Content-Disposition"] == 'inline; filename="preview.mp4"'
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_type_that_a_browser_could_run_scripts_in_is_not_shown(service: Service, folder: Path) -> None:
    put(folder / "passes" / "page.html", b"<script>")
    put(folder / "passes" / "image.svg", b"<svg>")
    for file in ("passes/page.html", "passes/image.svg", "beauty/beauty.1001.exr"):
        answer = await create(service, file=file, inline=True)
        assert (answer.status, answer.json()["code"]) == (400, "bad-request")


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"file": "nothing"}, 404, "file-missing"),
        ({"file": "beauty/beauty.1003.exr"}, 404, "file-missing"),
        ({"file": "passes/../secret.txt"}, 404, "file-missing"),
        ({"file": 1}, 400, "bad-request"),
        ({"file": ""}, 400, "bad-request"),
        ({"archive": "rar"}, 400, "bad-request"),
        ({"archive": {}}, 400, "bad-request"),
        ({"archive": "tar", "file": "preview"}, 400, "bad-request"),
        ({"archive": "tar", "inline": True}, 400, "bad-request"),
        ({"inline": 1}, 400, "bad-request"),
        ({"files": "preview"}, 400, "bad-request"),
    ],
)
async def test_wrong_request_creates_no_link(
    service: Service, members: dict[str, object], status: int, code: str
) -> None:
    answer = await create(service, **members)
    assert (answer.status, answer.json()["code"]) == (status, code)


async def test_no_link_is_created_before_the_job_is_completed(serve: Serve, make_job: MakeJob) -> None:
    render(make_job, status="rendering")
    service = await serve()
    for members in ({"file": "preview"}, {"archive": "tar"}, {}):
        assert (await create(service, **members)).status == 409
