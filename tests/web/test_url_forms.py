"""Forms of URLs and credentials: each has exactly one meaning or is refused."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

JOB = "/api/jobs/job-1"
ROUTES = (
    *("/api/jobs", "/api/events", "/api/me", "/api/openapi.json", "/healthz", "/readyz", "/metrics"),
    *(JOB, f"{JOB}/events", f"{JOB}/logs", f"{JOB}/download", f"{JOB}/download-links"),
)


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=b"film", log=b"one\n")
    service = await serve(limit_auth_failures="1000/minute")
    async with asyncio.timeout(10):
        while (await service.get("/readyz", token=None)).status != 200:
            await pause()  # the list is a 503 until then
    return service


async def test_extra_slash_is_another_url(service: Service) -> None:
    async with service.connect() as link:
        for route in ROUTES:
            first, _, rest = route[1:].partition("/")
            for target in (f"{route}/", f"/{route}", f"/{first}//{rest}", f"/./{route[1:]}", f"{route}/."):
                answer = await link.ask("GET", target, token=service.token)
                assert (answer.status, answer.code) in {(404, "not-found"), (404, "job-not-found")}, target


async def test_urls_are_case_sensitive(service: Service) -> None:
    async with service.connect() as link:
        for target in (
            "/API/jobs",
            "/api/Jobs",
            "/api/jobs/JOB-1",
            f"{JOB}/Download",
            f"{JOB}/LOGS",
            "/Healthz",
        ):
            assert (await link.ask("GET", target, token=service.token)).status == 404, target


@pytest.mark.parametrize(
    "job_id",
    [
        *("job-1%2Fdownload", "job-1%2f", "%2Fjob-1", "job-1%5C", "..%2Fjob-1", "%2e%2e", "%2E", "..", "."),
        *(
            "job-1%00",
            "job-1%0A",
            "job-1%20",
            "job-1;x",
            "job-1%3Fwait=1",
            "job-1%25",
            "%6aob%2d1%2e",
            "%zz",
            "%",
        ),
        *("%ff", "j%C3%B6b", "a" * 129),
    ],
)
async def test_invalid_job_id_is_404_on_every_route(service: Service, job_id: str) -> None:
    async with service.connect() as link:
        for rest in ("", "/events", "/logs", "/download"):
            answer = await link.ask("GET", f"/api/jobs/{job_id}{rest}", token=service.token)
            assert (answer.status, answer.code) == (404, "job-not-found"), rest


@pytest.mark.parametrize("job_id", ["%6Aob-1", "job%2D1", "%6a%6f%62%2d%31"])
async def test_percent_encoded_job_id_is_the_same_job(service: Service, job_id: str) -> None:
    for rest in ("", "/events", "/logs", "/download"):
        assert (await service.ask("HEAD", f"/api/jobs/{job_id}{rest}")).status == 200


async def test_head_has_the_header_fields_of_get_and_no_body(service: Service) -> None:
    async with service.connect() as link:
        for route in ROUTES:
            if route.endswith(("/events", "-links")):
                continue
            head = await link.ask("HEAD", route, token=service.token)
            get = await link.ask("GET", route, token=service.token)
            assert (head.status, head.body, set(head.headers)) == (get.status, b"", set(get.headers)), route


@pytest.mark.parametrize("form", ["bearer {}", "BEARER {}", "BeArEr {}", "Bearer  {}"])
async def test_scheme_is_case_insensitive(service: Service, form: str) -> None:
    for target in (JOB, "/api/me", f"{JOB}/download", "/api/jobs"):
        answer = await service.get(target, ("Authorization", form.format(service.token)), token=None)
        assert answer.status == 200, target


@pytest.mark.parametrize(
    "form",
    [
        *("{}", "Basic {}", "Token {}", "Bearer", "Bearer ", "", "Bearer\t{}", "Bearer {},", "Bearer {}x"),
        *("Bearer {0}, Bearer {0}", "Bearer {0} {0}", 'Bearer "{}"', "Bearer={}", "Bearer: {}"),
    ],
)
async def test_other_credentials_are_rejected_alike(service: Service, form: str) -> None:
    for target in (JOB, "/api/me", f"{JOB}/download", "/api/jobs"):
        answer = await service.get(target, ("Authorization", form.format(service.token)), token=None)
        assert (answer.status, answer.code) == (401, "unauthorized"), target


@pytest.mark.parametrize("second", ["Bearer {}", "", "Basic YTpi"])
async def test_two_authorization_fields_are_rejected_even_if_one_is_valid(
    service: Service, second: str
) -> None:
    for target in (JOB, "/api/me", f"{JOB}/download", "/api/jobs"):
        answer = await service.get(target, ("authorization", second.format(service.token)))
        assert (answer.status, answer.code) == (401, "unauthorized"), target
