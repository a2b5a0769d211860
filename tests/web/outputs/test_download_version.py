"""A `downloadUrl` names one version of the output: a client that resumes never joins two versions."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import urljoin

import orjson
import pytest

from tests.clients.raw_http import request
from tests.conftest import MakeJob, Serve
from tests.programs.external_programs import needs, run
from tests.programs.service_runner import Service

FILM = os.urandom(3_000_000)
PART = 1_000_000
OTHER = FILM[::-1]
JOB = "/api/jobs/job-1"


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM)
    return await serve()


async def download_url(service: Service, path: str = JOB) -> str:
    document = (await service.get(path, ("Cache-Control", "no-cache"))).json()
    return urljoin(path, str(document["downloadUrl"]))


async def ready(service: Service) -> None:
    """Wait until all jobs have been read."""
    ends = time.monotonic() + 15
    while (await service.get("/readyz")).status != 200:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


CLIENTS: dict[str, tuple[str, ...]] = {
    "curl": ("-sS", "-f", "-C", "-", "-o", "film.mp4", "-H"),
    "wget": ("-nv", "-c", "--tries=2", "--waitretry=0", "-O", "film.mp4", "--header"),
    "aria2c": ("--no-conf", "-q", "-c", "--max-tries=2", "--retry-wait=0", "-o", "film.mp4", "--header"),
}


@pytest.mark.parametrize("program", [pytest.param(name, marks=needs(name)) for name in CLIENTS])
@pytest.mark.parametrize("by", ["downloadUrl", "link"])
async def test_resuming_a_replaced_output_fails_and_joins_nothing(
    service: Service, make_job: MakeJob, tmp_path: Path, program: str, by: str
) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    into = folder / "film.mp4"
    target = await (download_url(service) if by == "downloadUrl" else service.link("job-1"))
    field = f"Authorization: Bearer {service.token}" if by == "downloadUrl" else "X-Request-Id: resumed"
    words = (*CLIENTS[program], field, f"http://127.0.0.1:{service.port}{target}")
    into.write_bytes(FILM[:PART])
    ended = await run(program, *words, folder=folder)
    assert (ended.exit_code, into.read_bytes() == FILM) == (0, True), ended.stderr
    into.write_bytes(FILM[:PART])
    make_job(output=OTHER)
    ended = await run(program, *words, folder=folder)
    assert ended.exit_code != 0
    assert into.read_bytes() == FILM[:PART]


@needs("curl")
async def test_curl_without_fail_does_not_append_the_error_document(
    service: Service, make_job: MakeJob, tmp_path: Path
) -> None:
    into = tmp_path / "film.mp4"
    into.write_bytes(FILM[:PART])
    target = await download_url(service)
    make_job(output=OTHER)
    field = f"Authorization: Bearer {service.token}"
    url = f"http://127.0.0.1:{service.port}{target}"
    ended = await run("curl", "-sS", "-C", "-", "-o", into, "-H", field, url)
    assert ended.exit_code == 33  # no range came back
    assert into.read_bytes() == FILM[:PART]


async def test_version_is_the_entity_tag_of_the_download(service: Service) -> None:
    url = await download_url(service)
    for method in ("GET", "HEAD"):
        answer = await service.ask(method, url)
        assert (answer.status, answer.headers["ETag"]) == (200, f'"{url.rpartition("=")[2]}"')


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "fields",
    [
        (),
        (("Range", "bytes=5-"),),
        (("If-None-Match", "*"),),
        (("If-Match", "*"),),
        (("Range", "bytes=99999999-"),),
    ],
)
async def test_other_version_is_412_whatever_the_conditions(
    service: Service, make_job: MakeJob, method: str, fields: tuple[tuple[str, str], ...]
) -> None:
    url = await download_url(service)
    make_job(output=OTHER)
    answer = await service.ask(method, url, fields)
    assert answer.status == 412
    assert answer.headers["ETag"] == (await service.download("job-1")).headers["ETag"]
    if method == "GET":
        assert answer.code == "output-replaced"
    now = await download_url(service)
    assert (await service.get(now)).body == OTHER
    assert (await service.download("job-1")).body == OTHER


async def test_persistent_connection_never_gets_another_version(service: Service, make_job: MakeJob) -> None:
    """The requests are equal byte for byte, so that the cached head and the fast path are used."""
    small = b"x" * 1000
    make_job(output=small)
    url = await download_url(service)
    async with service.connect() as link:
        for _ in range(5):
            assert (await link.ask("GET", url, token=service.token)).body == small
        make_job(output=small)
        for _ in range(5):
            answer = await link.ask("GET", url, token=service.token)
            assert (answer.status, answer.code) == (412, "output-replaced")
        now = await download_url(service)
        for target in (now, url, now):
            answer = await link.ask("GET", target, token=service.token)
            assert (answer.status == 200) == (target == now)


@pytest.mark.parametrize("version", ["", "x", "A" * 21, "A" * 22, "A" * 23, "%41" * 22])
async def test_any_other_value_is_another_version(service: Service, version: str) -> None:
    answer = await service.get(f"{JOB}/download?version={version}")
    assert (answer.status, answer.code) == (412, "output-replaced")


async def test_version_may_be_given_once_and_is_the_only_parameter(service: Service) -> None:
    url = await download_url(service)
    for query in ("&version=x", "&x=1", "&Version=x"):
        answer = await service.get(url + query)
        assert (answer.status, answer.code) == (400, "bad-request")
    assert (await service.get(url, token=None)).status == 401


async def test_job_without_an_output_has_no_download_url(serve: Serve, make_job: MakeJob) -> None:
    (make_job(output=FILM) / "output" / "film.mp4").unlink()
    service = await serve()
    await ready(service)
    assert "downloadUrl" not in (await service.get(JOB)).json()
    assert "downloadUrl" not in (await service.get("/api/jobs")).json()["jobs"][0]


async def test_job_that_renders_again_is_409_at_the_url_of_its_old_version(
    service: Service, make_job: MakeJob
) -> None:
    url = await download_url(service)
    make_job(status="rendering")
    answer = await service.get(url)
    assert (answer.status, answer.code) == (409, "job-not-completed")


@pytest.mark.parametrize("route", ["/api/jobs", JOB, f"{JOB}/events", "/api/events"])
async def test_each_route_shows_the_current_url_after_a_replacement(
    serve: Serve, make_job: MakeJob, route: str
) -> None:
    make_job(output=FILM)
    service = await serve(watch="events", max_age=0.05)
    shown = SHOWN[route]
    await ready(service)
    first = urljoin(route, await shown(service, route))
    assert (await service.get(first)).body == FILM
    make_job(output=OTHER)

    ends = time.monotonic() + 15
    while (now := urljoin(route, await shown(service, route))) == first:
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    assert (await service.get(now)).body == OTHER


async def in_list(service: Service, route: str) -> str:
    return str((await service.get(route)).json()["jobs"][0]["downloadUrl"])


async def in_status(service: Service, route: str) -> str:
    return str((await service.get(route)).json()["downloadUrl"])


async def in_events(service: Service, route: str) -> str:
    async with service.connect() as link:
        link.send(request("GET", route, token=service.token))
        data = await link.reader.readuntil(b'"downloadUrl":')
        data += await link.reader.readuntil(b"\n\n")
    line = next(line for line in data.splitlines() if line.startswith(b"data: "))
    return str(orjson.loads(line.removeprefix(b"data: "))["downloadUrl"])


SHOWN = {"/api/jobs": in_list, JOB: in_status, f"{JOB}/events": in_events, "/api/events": in_events}
