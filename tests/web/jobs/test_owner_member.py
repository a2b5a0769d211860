"""The `owner` member is sent only to `admin` tokens, and only they may filter by it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from tests.clients.raw_http import request
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

ODD = 'bert "the" \\ Bär, 夜'


@pytest.fixture
def admin(make_token: MakeToken) -> str:
    return make_token("operator", (ADMIN,))


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob, admin: str) -> Service:
    make_job("annas", status="rendering")
    make_job(
        "annas-failed", status="failed", log=b"no licence\n", metadata={"downloadUrl": "x", "owner": "y"}
    )
    make_job("annas-film", output=b"film")
    make_job("berts", owner=ODD)
    make_job("carls", owner="carl")
    return await ready(await serve())


async def ready(service: Service) -> Service:
    async with asyncio.timeout(15):
        while (await service.get("/readyz")).status != 200:
            await pause()
    return service


@pytest.mark.parametrize("job_id", ["annas", "annas-failed", "annas-film"])
async def test_status_has_the_owner_only_for_admins(service: Service, admin: str, job_id: str) -> None:
    target = f"/api/jobs/{job_id}"
    async with service.connect() as link:
        plain = (await link.ask("GET", target, token=service.token)).json()
        assert "owner" not in plain
        for _ in range(3):  # parsed first, then taken from the head cache
            assert (await link.ask("GET", target, token=admin)).json() == plain | {"owner": "anna"}
            assert (await link.ask("GET", target, token=service.token)).json() == plain


async def test_owner_may_have_any_name(service: Service, admin: str) -> None:
    assert (await service.get("/api/jobs/berts", token=admin)).json()["owner"] == ODD


async def test_entity_tags_differ_for_admins_and_each_gives_its_own_304(service: Service, admin: str) -> None:
    target = "/api/jobs/annas"
    tags = {
        token: (await service.get(target, token=token)).headers["ETag"] for token in (service.token, admin)
    }
    assert tags[service.token] != tags[admin]
    for method in ("GET", "HEAD"):
        for asking, own in tags.items():
            for token, tag in tags.items():
                answer = await service.ask(method, target, [("If-None-Match", tag)], token=asking)
                assert answer.status == (304 if token == asking else 200)
                assert answer.headers["ETag"] == own


async def test_long_poll_of_an_admin_uses_its_own_entity_tag(service: Service, admin: str) -> None:
    tag = (await service.get("/api/jobs/annas", token=admin)).headers["ETag"]
    answer = await service.get("/api/jobs/annas?wait=0.3", ("If-None-Match", tag), token=admin)
    assert answer.status == 304


def events(data: bytes) -> list[dict[str, Any]]:
    """Return the data of each job event of a stream."""
    lines = data.splitlines()
    payloads = (lines[at + 1 :] for at, line in enumerate(lines) if line == b"event: job")
    return [orjson.loads(next(each for each in some if each.startswith(b"data: "))[6:]) for some in payloads]


async def stream(service: Service, target: str, token: str | None, end: bytes) -> list[dict[str, Any]]:
    async with service.connect() as link:
        link.send(request("GET", target, token=token))
        assert (await link.head())[1] == 200
        async with asyncio.timeout(10):
            return events(await link.reader.readuntil(end))


async def test_events_of_a_job_have_the_owner_only_for_admins(service: Service, admin: str) -> None:
    target = "/api/jobs/annas/events"
    (shown,) = await stream(service, target, admin, b"}\n\n")
    assert shown["owner"] == "anna"
    (plain,) = await stream(service, target, service.token, b"}\n\n")
    assert shown == plain | {"owner": "anna"}


async def test_admin_resumes_a_finished_job_by_its_own_event_id(service: Service, admin: str) -> None:
    target = "/api/jobs/annas-film/events"
    tag = (await service.get("/api/jobs/annas-film", token=admin)).headers["ETag"].strip('"')
    assert (await service.get(target, ("Last-Event-ID", tag), token=admin)).status == 204


async def test_all_events_have_the_owner_only_for_admins(
    service: Service, admin: str, make_job: MakeJob
) -> None:
    present = b"event: present\n"
    shown = {job["id"]: job["owner"] for job in await stream(service, "/api/events", admin, present)}
    assert shown == {
        "annas": "anna",
        "annas-failed": "anna",
        "annas-film": "anna",
        "berts": ODD,
        "carls": "carl",
    }
    plain = await stream(service, "/api/events", service.token, present)
    assert {job["id"] for job in plain} == {"annas", "annas-failed", "annas-film"}
    assert not any("owner" in job for job in plain)
    async with service.connect() as link:
        link.send(request("GET", "/api/events", token=admin))
        async with asyncio.timeout(10):
            await link.reader.readuntil(present)
            make_job("annas", status="rendering", progress=50)
            assert b'"owner":"anna"' in await link.reader.readuntil(b'"progress":50') + (
                await link.reader.readuntil(b"\n\n")
            )


async def listed(service: Service, query: str, token: str | None) -> list[dict[str, Any]]:
    answer = await service.get(f"/api/jobs{query}", token=token)
    assert answer.status == 200, answer
    return list(answer.json()["jobs"])


async def test_list_has_the_owner_only_for_admins(service: Service, admin: str) -> None:
    for _ in range(2):
        shown = await listed(service, "", admin)
        assert {job["owner"] for job in shown} == {"anna", ODD, "carl"}
        plain = await listed(service, "", service.token)
        assert len(plain) == 3
        assert not any("owner" in job for job in plain)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?owner=carl", {"carls"}),
        ("?owner=carl&owner=anna", {"annas", "annas-failed", "annas-film", "carls"}),
        ("?owner=carl&owner=carl", {"carls"}),
        ("?owner=anna&status=failed", {"annas-failed"}),
        ("?owner=nobody", set()),
        ("?owner=Carl", set()),
        ("?owner=bert%20%22the%22%20%5C%20B%C3%A4r%2C%20%E5%A4%9C", {"berts"}),
    ],
)
async def test_admin_filters_the_list_by_owners(
    service: Service, admin: str, query: str, expected: set[str]
) -> None:
    assert {job["id"] for job in await listed(service, query, admin)} == expected


async def test_list_of_several_owners_is_paged(service: Service, admin: str) -> None:
    found, query = [], "?owner=anna&owner=carl&limit=1"
    page = (await service.get(f"/api/jobs{query}", token=admin)).json()
    while page["nextCursor"]:
        found += [job["id"] for job in page["jobs"]]
        page = (await service.get(f"/api/jobs{query}&cursor={page['nextCursor']}", token=admin)).json()
    found += [job["id"] for job in page["jobs"]]
    assert sorted(found) == ["annas", "annas-failed", "annas-film", "carls"]


@pytest.mark.parametrize("owner", ["anna", "carl", "nobody"])
async def test_other_tokens_may_not_filter_by_owner_not_even_their_own(service: Service, owner: str) -> None:
    answer = await service.get(f"/api/jobs?owner={owner}")
    assert (answer.status, answer.code) == (403, "insufficient-scope")
    assert answer.headers["WWW-Authenticate"].endswith('scope="admin"')


@pytest.mark.parametrize("query", ["owner=", "&".join(f"owner=o{number}" for number in range(101))])
async def test_no_owner_and_too_many_owners_are_refused_by_name(
    service: Service, admin: str, query: str
) -> None:
    answer = await service.get(f"/api/jobs?{query}", token=admin)
    assert (answer.status, answer.code) == (400, "bad-request")
    assert answer.json()["detail"].startswith("owner: ")


async def test_token_with_all_scopes_but_admin_sees_no_owner(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job()
    token = make_token("anna", (JOBS_READ, OUTPUTS_READ))
    assert "owner" not in (await (await serve()).get("/api/jobs/job-1", token=token)).json()
