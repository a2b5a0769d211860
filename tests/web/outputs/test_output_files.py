"""`GET /api/jobs/{id}/files/{output}[/{path}]`: one file, by the same rules as the download of a job."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import pause
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import FILES, render

BASE = "/api/jobs/job-1/files"
FRAME = f"{BASE}/beauty/beauty.1001.exr"
CONTENT = FILES["output/beauty.1001.exr"]


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("beauty/beauty.1004.exr", "output/beauty.1004.exr"),
        ("passes/depth/z%201.exr", "passes/depth/z 1.exr"),
        ("passes/m%C3%BCll.txt", "passes/müll.txt"),
        ("passes/empty", "passes/empty"),
        ("preview", "preview.mp4"),
        ("preview/preview.mp4", "preview.mp4"),
    ],
)
async def test_each_kind_of_output_serves_its_files(service: Service, path: str, file: str) -> None:
    answer = await service.get(f"{BASE}/{path}")
    assert (answer.status, answer.body) == (200, FILES[file])
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")


async def test_head_and_ranges_and_conditions_are_those_of_a_download(service: Service) -> None:
    head = await service.ask("HEAD", FRAME)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(CONTENT)), b"")
    tag = head.headers["ETag"]
    part = await service.get(FRAME, ("Range", "bytes=10-19"), ("If-Range", tag))
    assert (part.status, part.body) == (206, CONTENT[10:20])
    assert (await service.get(FRAME, ("If-None-Match", tag))).status == 304
    assert (await service.get(FRAME, ("If-Match", '"other"'))).status == 412
    assert (await service.get(FRAME, ("Range", "bytes=99999-"))).status == 416


@pytest.mark.parametrize(
    "path",
    [
        "beauty",  # a sequence is no file
        "passes",
        "passes/depth",
        "beauty/beauty.txt",  # not a frame
        "beauty/beauty.1003.exr",  # missing
        "beauty/beauty.1005.exr",  # outside `frames`
        "beauty/beauty.01001.exr",
        "beauty/..%2Fsecret.txt",
        "passes/..%2Fsecret.txt",
        "passes/%2E%2E/secret.txt",
        "passes//depth/z%201.exr",
        "passes/depth/./z%201.exr",
        "passes%2Fempty",
        "passes/link",
        "passes/linked/z%201.exr",
        "passes/fifo",
        "passes/%00",
        "preview/other.mp4",
        "secret.txt",
        "../secret.txt",
    ],
)
async def test_what_the_record_does_not_name_is_not_found(service: Service, folder: Path, path: str) -> None:
    (folder / "passes" / "link").symlink_to("empty")
    (folder / "passes" / "linked").symlink_to("depth")
    os.mkfifo(folder / "passes" / "fifo")
    (folder / "output" / "beauty.1005.exr").write_bytes(b"outside")
    answer = await service.get(f"{BASE}/{path}")
    assert answer.status == 404, answer


async def test_file_with_the_name_of_the_pattern_is_the_output_and_no_frame(
    service: Service, folder: Path
) -> None:
    put(folder / "output" / "beauty.####.exr", b"literal")
    assert (await service.get(f"{BASE}/beauty")).body == b"literal"
    assert (await service.get(f"{BASE}/beauty/beauty.%23%23%23%23.exr")).body == b"literal"
    assert (await service.get(FRAME)).status == 404


async def test_version_in_the_url_refuses_a_replaced_file(service: Service, folder: Path) -> None:
    tag = (await service.get(FRAME)).headers["ETag"].strip('"')
    assert (await service.get(f"{FRAME}?version={tag}")).status == 200
    put(folder / "output" / "beauty.1001.exr", b"again")
    answer = await service.get(f"{FRAME}?version={tag}")
    assert (answer.status, answer.json()["code"]) == (412, "output-replaced")


async def test_file_is_written_to_the_download_log(service: Service) -> None:
    await service.get(FRAME)
    (line,) = await service.wait_for_downloads(1)
    assert (line["file"], line["bytesSent"], line["outcome"]) == ("beauty.1001.exr", len(CONTENT), "complete")


async def test_files_of_another_owner_are_not_found(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    render(make_job)
    token = make_token("bert")
    answer = await (await serve()).get(FRAME, token=token)
    assert (answer.status, answer.json()["code"]) == (404, "job-not-found")


async def test_token_without_the_scope_is_refused(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    render(make_job)
    token = make_token("anna", ("jobs:read",))
    assert (await (await serve()).get(FRAME, token=token)).status == 403


async def test_files_of_a_job_that_is_not_completed_are_409(serve: Serve, make_job: MakeJob) -> None:
    render(make_job, status="rendering")
    assert (await (await serve()).get(FRAME)).status == 409


async def test_digest_of_each_file_is_sent_once_it_is_known(service: Service, folder: Path) -> None:
    """It is computed when it is requested, at the earliest 2 s after the file was written."""
    for path, content in (("beauty/beauty.1001.exr", CONTENT), ("preview", FILES["preview.mp4"])):
        answer = await service.ask("HEAD", f"{BASE}/{path}", (("Want-Repr-Digest", "sha-256=1"),))
        while "Repr-Digest" not in answer.headers:
            await pause()
            answer = await service.ask("HEAD", f"{BASE}/{path}", (("Want-Repr-Digest", "sha-256=1"),))
        expected = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert answer.headers["Repr-Digest"] == f"sha-256=:{expected}:"
    files = {file["path"]: file.get("sha256") for file in (await service.get(BASE)).json()["files"]}
    assert files["beauty.1001.exr"] == hashlib.sha256(CONTENT).hexdigest()
    assert files["preview.mp4"] == hashlib.sha256(FILES["preview.mp4"]).hexdigest()
    assert files["beauty.1002.exr"] is None
    put(folder / "output" / "beauty.1001.exr", b"again")
    answer = await service.get(FRAME, ("Want-Repr-Digest", "sha-256=1"))
    assert (answer.body, "Repr-Digest" in answer.headers) == (b"again", False)
