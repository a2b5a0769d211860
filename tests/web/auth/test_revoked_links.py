"""Links that are revoked one by one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from jobsvc.service import StartupError
from jobsvc.storage.state import link_key, token_file
from jobsvc.storage.state.link_record import link_id
from jobsvc.storage.state.links_file import load_links
from jobsvc.storage.state.revoked_links_file import add_revoked
from tests.clients.raw_http import Answer, request
from tests.conftest import MakeJob, Serve, StartProcess
from tests.eventually import pause, until, wait_until
from tests.programs.service_runner import Service

pytestmark = pytest.mark.alone  # a revoked link is refused within two seconds

LARGE = 16 << 20


def id_of(url: str) -> str:
    return link_id(url.rpartition("=")[2])


def revoke(folder: Path, *urls: str) -> float:
    add_revoked(folder / "revoked-links.json", {id_of(url): time.time() + 3600 for url in urls}, time.time())
    return time.monotonic()


async def follow(service: Service, url: str, *fields: tuple[str, str], method: str = "GET") -> Answer:
    return await service.ask(method, url, fields, token=None)


async def wait_until_refused(service: Service, url: str) -> Answer:
    async with asyncio.timeout(2):
        while (answer := await follow(service, url)).status != 401:
            await pause()
    return answer


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=b"film")
    return await serve(limit_auth_failures="1000000/minute")


async def test_only_the_revoked_link_is_refused(service: Service) -> None:
    one, other = [await service.link("job-1", body=body) for body in (b"", b'{"expiresIn": 60}')]
    whole = await follow(service, one)
    revoke(service.state_dir, one)
    refused = await wait_until_refused(service, one)
    assert refused.code == "unauthorized"
    tag = ("If-Range", whole.headers["ETag"])
    assert (await follow(service, one, ("Range", "bytes=1-"), tag)).status == 401
    assert (await follow(service, one, method="HEAD")).status == 401
    assert (await follow(service, other)).body == b"film"
    assert (await service.download("job-1")).status == 200


async def test_id_is_in_the_response_and_in_the_download_log(service: Service) -> None:
    document = (await service.ask("POST", "/api/jobs/job-1/download-links")).json()
    assert document["id"] == id_of(document["url"])
    await follow(service, document["url"])
    await service.download("job-1")
    lines = await service.wait_for_downloads(2)
    assert [(line["byLink"], line["link"]) for line in lines] == [(True, document["id"]), (False, None)]


async def test_revoked_link_remains_revoked_if_the_file_is_lost(service: Service) -> None:
    one, other = [await service.link("job-1", body=body) for body in (b"", b'{"expiresIn": 60}')]
    revoke(service.state_dir, one)
    await wait_until_refused(service, one)
    (service.state_dir / "revoked-links.json").write_bytes(b"broken")
    await until_metric(service, 1)
    assert (await follow(service, one)).status == 401
    (service.state_dir / "revoked-links.json").unlink()
    revoke(service.state_dir, other)
    await wait_until_refused(service, other)
    assert (await follow(service, one)).status == 401
    assert await service.metric("jobsvc_revoked_links_errors_total") == 1


async def until_metric(service: Service, count: int) -> None:
    while await service.metric("jobsvc_revoked_links_errors_total") < count:
        await pause()


@pytest.mark.parametrize("target", [b"{}", b'{"archive": "tar"}'])
async def test_download_by_a_revoked_link_ends_and_others_continue(
    target: bytes, serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=bytes(LARGE))
    service = await serve(download_rate=LARGE // 8)
    one = await service.link("job-1", body=target)
    other = await service.link("job-1", body=target.replace(b"}", b', "expiresIn": 60}').replace(b"{,", b"{"))
    async with service.connect() as revoked, service.connect() as continued:
        for connection, url in ((revoked, one), (continued, other)):
            connection.send(request("GET", url))
            await connection.head()
        changed = revoke(service.state_dir, one)
        while await revoked.read(1 << 16):
            pass
        assert time.monotonic() - changed < 2
        assert await continued.read(1)
    first, _ = await service.wait_for_downloads(2)
    assert (first["outcome"], first["link"]) == ("revoked", id_of(one))


async def test_service_does_not_start_with_an_unusable_file(serve: Serve, state_dir: Path) -> None:
    (state_dir / "revoked-links.json").write_bytes(b"broken")
    with pytest.raises(StartupError, match=r"revoked-links\.json: users other than its owner"):
        await serve()


async def test_file_is_in_the_secrets_directory_if_there_is_one(
    serve: Serve, make_job: MakeJob, state_dir: Path, tmp_path: Path
) -> None:
    make_job(output=b"film")
    secrets = tmp_path / "secrets"
    token, _ = token_file.create(secrets / "tokens.json", "anna", shared=True)
    link_key.create_shared(secrets / "link.key")
    service = await serve(secrets_dir=secrets, limit_auth_failures="1000000/minute")
    url = await service.link("job-1", token=token)
    revoke(state_dir, url)
    revoke(secrets)
    assert (await follow(service, url)).status == 200
    revoke(secrets, url)
    await wait_until_refused(service, url)


async def test_created_links_are_recorded_without_their_signatures(service: Service) -> None:
    url = await service.link("job-1", body=b'{"expiresIn": 60}')
    path = service.state_dir / "links.jsonl"
    await until(lambda: len(load_links(path)) == 1)
    [link] = load_links(path)
    assert (link.id, link.job, link.name, link.owner) == (id_of(url), "job-1", "film.mp4", "anna")
    assert link.expires - link.created == pytest.approx(60, abs=0.1)
    assert url.rpartition("=")[2] not in path.read_text()


async def test_record_of_links_is_written_once_the_file_can_be_written(service: Service) -> None:
    path = service.state_dir / "links.jsonl"
    path.mkdir()
    await service.link("job-1")
    while not await service.metric("jobsvc_issued_links_errors_total"):
        await pause()
    path.rmdir()
    await until(lambda: len(load_links(path)) == 1)


def test_links_of_the_last_moment_are_recorded_and_log_lines_name_the_link(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    service = start_process("--watch", "poll")

    async def create_and_revoke() -> str:
        url = await service.link("job-1")
        revoke(service.state_dir, url)
        await wait_until_refused(service, url)
        await service.link("job-1", body=b'{"expiresIn": 60}')
        return url

    url = asyncio.run(create_and_revoke())
    service.send_signal()
    assert service.wait() == 0
    assert len(load_links(service.state_dir / "links.jsonl")) == 2
    wait_until(lambda: service.lines("refused") != [])
    line: dict[str, Any] = service.lines("refused")[-1]
    assert (line["reason"], line["link"], line["status"]) == ("link-revoked", id_of(url), 401)
    assert service.lines("link-created")[0]["link"] == id_of(url)
    assert url.rpartition("=")[2] not in service.stderr_file.read_text()
