"""`GET /api/me` against the running service."""

from __future__ import annotations

import time

import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state.token_file import load, revoke
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

ME = "/api/me"


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job()
    return await serve(limit_status="5/minute", limit_list="3/hour")


async def test_token_gets_its_details_and_what_remains_of_its_budgets(service: Service) -> None:
    for _ in range(2):
        await service.get("/api/jobs/job-1")
    answer = await service.get(ME)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    me = answer.json()
    assert (me["owner"], me["scopes"]) == ("anna", [JOBS_READ, OUTPUTS_READ])
    assert me["label"] is None
    assert me["expiresAt"] is None
    assert me["id"]
    assert service.token is not None
    assert service.token not in answer.body.decode()
    assert {"status", "list", "logs", "download"} <= me["budgets"].keys()
    status = me["budgets"]["status"]
    assert (status["limit"], status["window"], status["remaining"]) == (5, 60, 3)
    assert 0 < status["reset"] <= 60
    assert me["budgets"]["list"]["remaining"] == 3


async def test_request_is_not_counted_and_agrees_with_the_header_fields(service: Service) -> None:
    for _ in range(20):
        assert (await service.get(ME)).status == 200
    answer = await service.get(ME)
    assert "RateLimit" not in answer.headers
    left = answer.json()["budgets"]["status"]
    assert left["remaining"] == 5
    header_fields = (await service.get("/api/jobs/job-1")).headers
    assert header_fields["RateLimit"].startswith('"status";r=4;t=')
    assert header_fields["RateLimit-Policy"] == f'"status";q={left["limit"]};w={left["window"]}'


async def test_exhausted_budget_reports_when_a_request_passes(service: Service) -> None:
    while (refused := await service.get("/api/jobs/job-1")).status == 200:
        pass
    left = (await service.get(ME)).json()["budgets"]["status"]
    assert left["remaining"] == 0
    assert abs(left["reset"] - int(refused.headers["Retry-After"])) <= 1


@pytest.mark.parametrize("scopes", [(JOBS_READ,), (OUTPUTS_READ,), (ADMIN,)])
async def test_every_scope_is_allowed(serve: Serve, make_token: MakeToken, scopes: tuple[str, ...]) -> None:
    token = make_token("bert", scopes, time.time() + 3600)
    me = (await (await serve()).get(ME, token=token)).json()
    assert (me["owner"], me["scopes"]) == ("bert", sorted(scopes))
    assert me["expiresAt"].endswith("Z")


async def test_head_has_no_body_and_other_methods_are_refused(service: Service) -> None:
    head = await service.ask("HEAD", ME)
    assert (head.status, head.body) == (200, b"")
    assert head.content_length > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = await service.ask(method, ME)
        assert (answer.status, answer.code) == (405, "method-not-allowed")


async def test_invalid_token_is_401_and_counted(
    serve: Serve, make_token: MakeToken, make_job: MakeJob
) -> None:
    service = await serve(limit_auth_failures="2/hour")
    assert (await service.get(ME, token=None)).code == "unauthorized"
    statuses = [(await service.get(ME, token="jsvc_wrong")).status for _ in range(3)]  # noqa: S106 - of nobody
    assert statuses == [401, 401, 429]
    assert (await service.get(ME)).status == 200


async def test_revoked_token_is_401(service: Service) -> None:
    path = service.state_dir / "tokens.json"
    (token,) = load(path)
    revoke(path, token.id)
    while (answer := await service.get(ME)).status == 200:
        await pause()
    assert answer.status == 401


async def test_download_link_is_not_a_token(service: Service, make_job: MakeJob) -> None:
    make_job(output=b"film")
    made = await service.ask("POST", "/api/jobs/job-1/download-links")
    query = made.json()["url"].partition("?")[2]
    assert (await service.get(f"{ME}?{query}", token=None)).status == 401
