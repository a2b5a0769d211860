"""`GET /api/jobs/{id}/archive.zip`: all files of a job, for programs that read no tar."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from urllib.parse import urljoin

import pytest

from jobsvc.storage.archive import zip as module
from tests.clients.raw_http import Answer
from tests.conftest import put
from tests.eventually import pause
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import FILES, MEMBERS

ZIP = "/api/jobs/job-1/archive.zip"
LINKS = "/api/jobs/job-1/download-links"
CONTENT = {name: FILES[path] for name, path in MEMBERS.items()}


def unzip(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


async def whole_with_ranges(service: Service) -> Answer:
    """Request the archive until every CRC-32 is known: those of files written 2 s ago or more are kept."""
    answer = await service.get(ZIP)
    while answer.headers["Accept-Ranges"] != "bytes":
        await pause()
        answer = await service.get(ZIP)
    return answer


async def test_archive_has_every_file_under_the_name_of_its_output(service: Service) -> None:
    answer = await service.get(ZIP)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/zip")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="job-1.zip"'
    assert unzip(answer.body) == CONTENT


async def test_ranges_are_refused_before_and_allowed_after_the_checksums_are_known(service: Service) -> None:
    first = await service.get(ZIP, ("Range", "bytes=0-99"))
    assert (first.status, first.headers["Accept-Ranges"]) == (200, "none")
    whole = await whole_with_ranges(service)
    assert (whole.body, whole.headers["ETag"]) == (first.body, first.headers["ETag"])
    part = await service.get(ZIP, ("Range", "bytes=500-1999"), ("If-Range", whole.headers["ETag"]))
    assert (part.status, part.body) == (206, whole.body[500:2000])


async def test_link_survives_that_checksums_become_known_and_joins_no_two_archives(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_READ_FIRST_BYTES", 2000)
    answer = await service.ask("POST", LINKS, body=b'{"archive": "zip"}')
    link = urljoin(LINKS, str(answer.json()["url"]))
    before = await service.get(link, token=None)
    known = await whole_with_ranges(service)
    assert known.headers["ETag"] != before.headers["ETag"]
    assert len(known.body) == len(before.body)
    after = await service.get(link, ("Range", "bytes=100-"), token=None)
    assert (after.status, after.body) == (200, known.body)
    resumed = await service.get(
        link, ("Range", "bytes=100-"), ("If-Range", known.headers["ETag"]), token=None
    )
    assert (resumed.status, resumed.body) == (206, known.body[100:])
    assert unzip(before.body) == unzip(known.body) == CONTENT


async def test_link_to_replaced_files_is_412(service: Service, folder: Path) -> None:
    answer = await service.ask("POST", LINKS, body=b'{"archive": "zip"}')
    put(folder / "preview.mp4", b"again")
    assert (await service.get(urljoin(LINKS, str(answer.json()["url"])), token=None)).status == 412
