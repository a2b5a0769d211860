"""`GET /api/jobs/{id}/archive.tar`: all files of a job as one archive that resumes at any byte."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import until_equal
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import FILES, MEMBERS, render

TAR = "/api/jobs/job-1/archive.tar"


def unpack(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            member.name: content.read()
            for member in opened
            if (content := opened.extractfile(member)) is not None
        }


async def test_archive_has_every_file_under_the_name_of_its_output(service: Service) -> None:
    answer = await service.get(TAR)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-tar")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="job-1.tar"'
    assert unpack(answer.body) == {name: FILES[path] for name, path in MEMBERS.items()}
    assert list(unpack(answer.body)) == list(MEMBERS)


async def test_head_has_the_fields_of_get(service: Service) -> None:
    head, answer = await service.ask("HEAD", TAR), await service.get(TAR)
    assert head.headers["Content-Length"] == str(len(answer.body))
    assert (head.headers["ETag"], head.headers["Accept-Ranges"]) == (answer.headers["ETag"], "bytes")


@pytest.mark.parametrize(
    "field", ["bytes=0-0", "bytes=100-1700", "bytes=5000-", "bytes=-700", "bytes=511-513"]
)
async def test_range_is_that_part_of_the_archive(service: Service, field: str) -> None:
    whole = (await service.get(TAR)).body
    answer = await service.get(TAR, ("Range", field))
    assert answer.status == 206
    first, _, size = answer.headers["Content-Range"].removeprefix("bytes ").partition("/")
    start, stop = map(int, first.split("-"))
    assert (answer.body, int(size)) == (whole[start : stop + 1], len(whole))


async def test_several_ranges_are_sent_as_parts(service: Service) -> None:
    whole = (await service.get(TAR)).body
    answer = await service.get(TAR, ("Range", "bytes=0-99,2000-2099"))
    assert answer.headers["Content-Type"].startswith("multipart/byteranges")
    assert whole[:100] in answer.body
    assert whole[2000:2100] in answer.body


async def test_range_after_a_frame_was_replaced_is_the_whole_new_archive(
    service: Service, folder: Path
) -> None:
    tag = (await service.get(TAR)).headers["ETag"]
    put(folder / "output" / "beauty.1001.exr", b"again")
    answer = await service.get(TAR, ("Range", "bytes=100-"), ("If-Range", tag))
    assert answer.status == 200
    assert unpack(answer.body)["beauty/beauty.1001.exr"] == b"again"


async def test_version_in_the_url_refuses_an_archive_of_other_files(service: Service, folder: Path) -> None:
    version = (await service.get(TAR)).headers["ETag"].strip('"')
    assert (await service.get(f"{TAR}?version={version}")).status == 200
    put(folder / "passes" / "more", b"")
    answer = await service.get(f"{TAR}?version={version}", ("Range", "bytes=100-"))
    assert (answer.status, answer.json()["code"]) == (412, "output-replaced")


async def test_output_and_frames_select_files(service: Service) -> None:
    beauty = unpack((await service.get(f"{TAR}?output=beauty")).body)
    assert list(beauty) == list(MEMBERS)[:3]
    some = unpack((await service.get(f"{TAR}?output=beauty&frames=1002-1003")).body)
    assert list(some) == ["beauty/beauty.1002.exr"]
    two = unpack((await service.get(f"{TAR}?output=preview&output=beauty")).body)
    assert list(two) == [*list(MEMBERS)[:3], "preview/preview.mp4"]


@pytest.mark.parametrize(
    ("query", "status"),
    [("output=x", 404), ("frames=5-6", 404), ("frames=9-1", 400), ("frames=a", 400), ("frame=1", 400)],
)
async def test_wrong_selection_is_an_error(service: Service, query: str, status: int) -> None:
    assert (await service.get(f"{TAR}?{query}")).status == status


async def test_download_of_a_sequence_is_its_archive(service: Service) -> None:
    answer = await service.download("job-1")
    assert list(unpack(answer.body)) == list(MEMBERS)[:3]
    assert answer.headers["Content-Disposition"] == 'attachment; filename="job-1.tar"'


async def test_archive_is_written_to_the_download_log(service: Service) -> None:
    answer = await service.get(TAR)
    (line,) = await service.wait_for_downloads(1)
    assert (line["file"], line["etag"]) == ("job-1.tar", answer.headers["ETag"])
    assert (line["bytesSent"], line["outcome"]) == (len(answer.body), "complete")
    await until_equal(lambda: service.metric("jobsvc_archive_bytes_total"), len(answer.body))


async def test_archive_of_another_owner_is_not_found(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    render(make_job)
    token = make_token("bert")
    answer = await (await serve()).get(TAR, token=token)
    assert (answer.status, answer.json()["code"]) == (404, "job-not-found")


async def test_archive_of_a_job_that_is_not_completed_is_409(serve: Serve, make_job: MakeJob) -> None:
    render(make_job, status="rendering")
    assert (await (await serve()).get(TAR)).status == 409


async def test_unchanged_archive_is_304(service: Service) -> None:
    tag = (await service.get(TAR)).headers["ETag"]
    assert (await service.get(TAR, ("If-None-Match", tag))).status == 304


async def test_directory_below_an_output_root_is_an_archive(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    put(tmp_path / "outputs" / "a" / "film.mp4", b"film")
    make_job(status="completed", outputPath=f"{tmp_path}/outputs/a")
    service = await serve(output_roots=(tmp_path / "outputs",))
    assert unpack((await service.download("job-1")).body) == {"main/film.mp4": b"film"}


async def test_clients_that_are_sent_the_same_archive_at_once_get_the_same_bytes(service: Service) -> None:
    whole, *others = await asyncio.gather(*(service.get(TAR) for _ in range(8)))
    assert all(other.body == whole.body for other in others)
