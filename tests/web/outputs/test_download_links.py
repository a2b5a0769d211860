from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson
import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ
from jobsvc.storage.state.token_file import load, revoke
from tests.clients.raw_http import Answer, Connection, request
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import until
from tests.programs.service_runner import Service

FILM = bytes(range(256)) * 40


async def ask_link(
    service: Service, job: str = "job-1", token: str | None = "", **body_members: Any
) -> Answer:
    body = orjson.dumps(body_members) if body_members else b""
    return await service.ask("POST", f"/api/jobs/{job}/download-links", token=token, body=body)


async def link_to(service: Service, job: str = "job-1", token: str | None = "", **body_members: Any) -> str:
    return target_in(await ask_link(service, job, token, **body_members), job)


def target_in(answer: Answer, job: str = "job-1") -> str:
    """Resolve the URL of a link against that of the request."""
    assert answer.status == 201, answer
    return urljoin(f"/api/jobs/{job}/download-links", str(answer.json()["url"]))


async def follow(service: Service, url: str, *fields: tuple[str, str], method: str = "GET") -> Answer:
    return await service.ask(method, url, fields, token=None)


def signature_in(url: str) -> str:
    return url.rpartition("signature=")[2]


def token_ids(service: Service) -> list[str]:
    return [token.id for token in load(service.state_dir / "tokens.json")]


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    """A service without limits that a test could reach."""
    make_job(output=FILM)
    return await serve(limit_download="1000000/second", limit_auth_failures="1000000/second")


async def test_link_is_created_as_documented(service: Service) -> None:
    before = time.time()
    answer = await ask_link(service)
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Location" not in answer.headers
    assert answer.headers["RateLimit-Policy"].startswith('"download"')
    made = answer.json()
    assert list(made) == ["id", "url", "expiresAt"]
    path, _, query = made["url"].partition("?")
    assert path == "/api/jobs/job-1/download/film.mp4"
    assert re.fullmatch(r"version=[\w-]{22}&token=[\w.-]+&expires=\d+&signature=[\w-]{43}", query)
    lives = datetime.fromisoformat(made["expiresAt"]).timestamp() - before
    assert 3599.9 < lives < 3605
    assert (await follow(service, target_in(answer))).body == FILM


async def test_link_gets_the_same_responses_as_a_token(service: Service) -> None:
    url = await link_to(service)
    by_token = await service.download("job-1")
    whole = await follow(service, url)
    assert (whole.status, whole.body) == (200, FILM)
    unlike = {"Date", "X-Request-Id", "RateLimit"}
    assert {k: v for k, v in whole.headers.items() if k not in unlike} == {
        k: v for k, v in by_token.headers.items() if k not in unlike
    }
    assert whole.headers["Content-Disposition"] == 'attachment; filename="film.mp4"'
    assert whole.headers["Referrer-Policy"] == "no-referrer"
    head = await follow(service, url, method="HEAD")
    assert (head.status, head.content_length, head.body) == (200, len(FILM), b"")
    part = await follow(service, url, ("Range", "bytes=100-199"))
    assert (part.status, part.body) == (206, FILM[100:200])
    tag = whole.headers["ETag"]
    resumed = await follow(service, url, ("Range", "bytes=5000-"), ("If-Range", tag))
    assert (resumed.status, resumed.body) == (206, FILM[5000:])
    anew = await follow(service, url, ("Range", "bytes=5000-"), ("If-Range", '"other"'))
    assert (anew.status, anew.body) == (200, FILM)
    several = await follow(service, url, ("Range", "bytes=0-0,5000-5000"))
    assert several.headers["Content-Type"].startswith("multipart/byteranges")
    assert (await follow(service, url, ("If-None-Match", tag))).status == 304
    assert (await follow(service, url, ("Range", "bytes=99999999-"))).status == 416


async def test_download_by_link_is_logged_under_its_token(service: Service) -> None:
    [token] = token_ids(service)
    url = await link_to(service)
    left = (await follow(service, url)).headers["RateLimit"]
    assert (await service.download("job-1")).headers["RateLimit"].partition(";t")[0] != left
    first, second = await service.wait_for_downloads(2)
    assert first["tokenId"] == second["tokenId"] == token
    assert (first["job"], first["owner"], first["outcome"]) == ("job-1", "anna", "complete")


async def test_creating_and_following_links_consumes_the_budget_of_the_token(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=FILM)
    service = await serve(limit_download="3/hour")
    url = await link_to(service)
    assert [(await follow(service, url)).status for _ in range(3)] == [200, 200, 429]
    answer = await ask_link(service)
    assert (answer.status, answer.code) == (429, "rate-limited")
    assert (await service.download("job-1")).status == 429


async def test_download_by_link_takes_a_slot_of_its_token(serve: Serve, make_job: MakeJob) -> None:
    with (make_job(output=FILM) / "output" / "film.mp4").open("r+b") as file:
        file.truncate(64_000_000)
    service = await serve(max_downloads_per_token=1)
    url = await link_to(service)
    async with service.connect() as stalled:
        stalled.send(request("GET", url))
        assert (await stalled.head())[1] == 200
        assert (await follow(service, url)).code == "too-many-downloads"
        assert (await service.download("job-1")).code == "too-many-downloads"


async def test_link_is_valid_exactly_until_it_expires(service: Service) -> None:
    answer = await ask_link(service, expiresIn=4)
    ends = datetime.fromisoformat(answer.json()["expiresAt"]).timestamp()
    statuses: list[tuple[float, int, float]] = []
    while not statuses or statuses[-1][1] != 401:
        requested_at = time.time()
        statuses.append((requested_at, (await follow(service, target_in(answer))).status, time.time()))
        assert requested_at < ends + 5
        await asyncio.sleep(0.05)
    assert all(status == 200 for _, status, answered in statuses if answered < ends - 0.002)
    assert all(status == 401 for requested_at, status, _ in statuses if requested_at > ends + 0.002)
    assert statuses[0][1] == 200


async def test_link_expires_no_later_than_its_token(service: Service, make_token: MakeToken) -> None:
    ends = round(time.time()) + 60
    short = make_token(expires=ends)
    await wait_until_token_is_known(service, short)
    answer = await ask_link(service, token=short)
    assert datetime.fromisoformat(answer.json()["expiresAt"]).timestamp() == ends
    assert (await follow(service, target_in(answer))).status == 200


@pytest.mark.alone
async def test_links_of_a_revoked_token_are_rejected_within_two_seconds(
    service: Service, make_token: MakeToken
) -> None:
    other = make_token()
    await wait_until_token_is_known(service, other)
    dead, alive = await link_to(service), await link_to(service, token=other)
    revoke(service.state_dir / "tokens.json", token_ids(service)[0])
    ends = time.monotonic() + 2
    while (await follow(service, dead)).status != 401:
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    assert (await follow(service, dead)).code == "unauthorized"
    assert (await follow(service, alive)).status == 200


async def test_link_of_a_token_without_the_scope_is_refused_like_the_token(service: Service) -> None:
    url = await link_to(service)
    path = service.state_dir / "tokens.json"
    path.write_bytes(path.read_bytes().replace(b'"outputs:read"', b'"jobs:read"'))
    ends = time.monotonic() + 15
    while (answer := await follow(service, url)).status == 200:
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    assert (answer.status, answer.code) == (403, "insufficient-scope")


async def test_link_to_a_job_that_changed_its_owner_is_404(service: Service, make_job: MakeJob) -> None:
    url = await link_to(service)
    make_job(output=FILM, owner="bert")
    assert (await follow(service, url)).code == "job-not-found"


async def test_link_to_a_replaced_output_is_412_and_a_new_link_serves_the_new_output(
    service: Service, make_job: MakeJob
) -> None:
    url = await link_to(service)
    make_job(output=b"another")
    answer = await follow(service, url)
    assert (answer.status, answer.code) == (412, "output-replaced")
    assert (await follow(service, url, ("Range", "bytes=100-"))).code == "output-replaced"
    assert (await follow(service, url, method="HEAD")).status == 412
    assert (await follow(service, await link_to(service))).body == b"another"
    make_job(status="rendering")
    assert (await follow(service, url)).code == "job-not-completed"


@pytest.mark.parametrize(
    "spoilt",
    [
        "{path}?{query}&",
        "{path}?&{query}",
        "{path}?{query}&x=1",
        "{path}?x=1&{query}",
        "{path}?{query}&{query}",
        "{path}?{query}#",
        "{path}?{query}%20",
        "{path}?{query}=",
        "{path}?%76ersion{rest}",
        "{path}?Version{rest}",
        "{path}?signature={signature}",
        "{path}?signature={signature}&{others}",
        "{path}?{others}",
        "{path}?{others}&signature=",
        "{path}?{others}&signature={signature}&signature={signature}",
        "{path}?{others}&signature={swapped}",
        "{path}?{others}&signature=" + "A" * 43,
        "{path}?x=1",
        "{path}??{query}",
        "/api/jobs/job-2/download/film.mp4?{query}",
        "/api/jobs/unknown/download/film.mp4?{query}",
        "/api/jobs/job-1%00/download/film.mp4?{query}",
        "/api/jobs/%ff/download/film.mp4?{query}",
        "/api/jobs/job-1/download/film.mp4?{later}",
        "/api/jobs/job-1/download?{query}",
        "/api/jobs/job-1/download/other.mp4?{query}",
        "/api/jobs/%6Aob-1/download/film.mp4?{query}",
        "/api/jobs/job-1/download/film%2Emp4?{query}",
        "/api/jobs/job-1/download/%66ilm.mp4?{query}",
    ],
)
async def test_modified_link_is_401(service: Service, make_job: MakeJob, spoilt: str) -> None:
    make_job("job-2", output=b"other")
    path, _, query = (await link_to(service)).partition("?")
    others, _, signature = query.rpartition("&signature=")
    token, _, expires = others.rpartition("=")
    target = spoilt.format(
        path=path,
        query=query,
        rest=query.removeprefix("version"),
        others=others,
        signature=signature,
        swapped=signature.swapcase(),
        later=f"{token}={int(expires) + 1}&signature={signature}",
    )
    for method in ("GET", "HEAD"):
        answer = await follow(service, target, method=method)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="jobsvc"'
    assert (await follow(service, target)).code == "unauthorized"
    assert (await follow(service, f"{path}?{query}")).status == 200


async def test_invalid_links_count_as_invalid_tokens_and_a_valid_one_still_passes(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=FILM)
    service = await serve(limit_auth_failures="2/hour")
    url = await link_to(service)
    assert [(await follow(service, f"{url}x")).status for _ in range(3)] == [401, 401, 429]
    assert (await follow(service, url)).status == 200
    assert [(await service.download("job-1", token=None)).status for _ in range(3)] == [401] * 3


async def test_authorization_header_takes_precedence_over_the_link(
    service: Service, make_token: MakeToken
) -> None:
    url = await link_to(service)
    assert (await service.get(f"{url}x")).status == 200
    assert (await service.get(url, token="jsvc_" + "x" * 43)).status == 401
    assert (await service.get(url, ("Authorization", "Basic YTpi"), token=None)).status == 401


async def test_link_opens_only_its_download(service: Service) -> None:
    _, _, query = (await link_to(service)).partition("?")
    for target in ("/api/jobs/job-1", "/api/jobs/job-1/download", "/api/jobs/job-1/download/"):
        assert (await follow(service, f"{target}?{query}")).status in {401, 404}
    again = await service.ask("POST", f"/api/jobs/job-1/download-links?{query}", token=None)
    assert again.code == "unauthorized"
    named = f"/api/jobs/job-1/download/film.mp4?{query}"
    assert (await follow(service, named, method="DELETE")).status == 405


async def test_only_the_owner_or_an_admin_creates_links(service: Service, make_token: MakeToken) -> None:
    bert, admin = make_token("bert"), make_token("ops", [ADMIN])
    looks = make_token(scopes=[JOBS_READ])
    await wait_until_token_is_known(service, admin)
    unknown = await ask_link(service, "unknown")
    anothers = await ask_link(service, token=bert)
    assert (anothers.status, anothers.code) == (unknown.status, unknown.code) == (404, "job-not-found")
    assert anothers.json() | {"requestId": ""} == unknown.json() | {"requestId": ""}
    assert (await ask_link(service, token=looks)).code == "insufficient-scope"
    assert (await ask_link(service, token=None)).code == "unauthorized"
    url = await link_to(service, token=admin)
    assert (await follow(service, url)).body == FILM


async def test_link_of_an_admin_is_for_one_job(
    service: Service, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job("job-2", output=b"other")
    admin = make_token("ops", [ADMIN])
    await wait_until_token_is_known(service, admin)
    url = await link_to(service, token=admin)
    assert (await follow(service, url.replace("job-1", "job-2"))).status == 401


async def test_link_is_refused_unless_the_output_is_finished(service: Service, make_job: MakeJob) -> None:
    make_job("queued")
    make_job("failed", status="failed")
    make_job("canceled", status="canceled")
    (make_job("bare", output=FILM) / "output" / "film.mp4").unlink()
    codes = [(await ask_link(service, job)).code for job in ("queued", "failed", "canceled", "bare")]
    assert codes == ["job-not-completed", "job-failed", "job-canceled", "output-missing"]
    assert (await ask_link(service, "queued")).headers["Retry-After"]


async def test_link_is_available_as_soon_as_the_record_says_completed(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering")
    service = await serve(max_age=60)
    assert (await ask_link(service)).status == 409
    make_job(output=FILM)
    assert (await ask_link(service)).status == 201


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"\xff",
        b" ",
        b"[]",
        b"null",
        b"3600",
        b'{"expiresIn": 3600',
        b'{"expires": 60}',
        b'{"expiresIn": 60, "x": 1}',
        b'{"expiresIn": null}',
        b'{"expiresIn": true}',
        b'{"expiresIn": "60"}',
        b'{"expiresIn": [60]}',
        b'{"expiresIn": 0}',
        b'{"expiresIn": -1}',
        b'{"expiresIn": 0.5}',
        b'{"expiresIn": 1.5}',
        b'{"expiresIn": 601}',
        b'{"expiresIn": 1e300}',
        b'{"expiresIn": 1e999}',
        b'{"expiresIn": 99999999999999999999}',
        b'{"expiresIn": NaN}',
        b"[" * 60_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
async def test_invalid_body_is_400(serve: Serve, make_job: MakeJob, body: bytes) -> None:
    make_job(output=FILM)
    service = await serve(max_link_age=600)
    answer = await service.ask("POST", "/api/jobs/job-1/download-links", body=body)
    assert (answer.status, answer.code) == (400, "bad-request")
    if b'"expiresIn":' in body and answer.json()["detail"] != "The request body is not valid JSON.":
        assert "expiresIn" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "lives"),
    [
        (b"", 600),
        (b"{}", 600),
        (b'{"expiresIn": 600}', 600),
        (b'\n{"expiresIn": 6e1} ', 60),
        (b'{"expiresIn":1}', 1),
    ],
)
async def test_lifetime_of_a_link_is_limited_by_the_operator(
    serve: Serve, make_job: MakeJob, body: bytes, lives: int
) -> None:
    make_job(output=FILM)
    service = await serve(max_link_age=600)
    before = time.time()
    answer = await service.ask(
        "POST", "/api/jobs/job-1/download-links", [("Content-Type", "text/plain")], body=body
    )
    assert answer.status == 201
    ends = datetime.fromisoformat(answer.json()["expiresAt"]).timestamp()
    assert before + lives - 0.002 <= ends <= time.time() + lives


async def test_too_large_body_is_413(service: Service) -> None:
    answer = await service.ask("POST", "/api/jobs/job-1/download-links", body=b" " * 65_537)
    assert (answer.status, answer.code) == (413, "content-too-large")


async def test_unreadable_body_is_400_and_not_an_error(service: Service) -> None:
    chunked = request(
        "POST", "/api/jobs/job-1/download-links", [("Transfer-Encoding", "chunked")], token=service.token
    )
    async with service.connect() as link:
        link.send(chunked + b"zz\r\n")
        assert (await link.answer()).code == "bad-request"


async def test_missing_body_times_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.web.outputs.link_request.BODY_TIMEOUT_S", 0.05)
    async with service.connect() as link:
        link.send(half_a_request(service))
        assert (await link.answer()).code == "request-timeout"


async def test_client_that_disconnects_within_its_body_is_not_an_error(start_process: StartProcess) -> None:
    service = start_process()
    async with service.connect() as link:
        link.send(half_a_request(service))
        await until(lambda: seen(link))
        await link.reset()
    await until(lambda: service.lines("refused"))
    assert [line["status"] for line in service.lines("refused")] == [400]
    assert service.lines("request-failed") == []


def half_a_request(service: Service) -> bytes:
    fields = [("Content-Length", "20")]
    return request("POST", "/api/jobs/job-1/download-links", fields, token=service.token) + b'{"exp'


def seen(link: Connection) -> bool:
    """Whether everything that was sent has left the send buffer."""
    return link.writer.transport.get_write_buffer_size() == 0


async def test_other_methods_are_405_with_allow(service: Service) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = await service.ask(method, "/api/jobs/job-1/download-links")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    answer = await service.ask("POST", "/api/jobs/job-1/download")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


async def test_expect_100_continue_is_answered(service: Service) -> None:
    body = b'{"expiresIn": 60}'
    fields = [("Expect", "100-continue"), ("Content-Length", str(len(body)))]
    async with service.connect() as link:
        link.send(request("POST", "/api/jobs/job-1/download-links", fields, token=service.token))
        assert (await link.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.send(body)
        assert (await link.answer()).status == 201
        assert (await link.ask("GET", "/healthz")).status == 200


async def test_links_survive_a_restart_and_are_not_logged(
    start_process: StartProcess, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=FILM)
    first = start_process()
    url = await link_to(first)
    assert (await follow(first, url)).body == FILM
    wrong = "B" * 43
    assert (await follow(first, url.replace(signature_in(url), wrong))).status == 401
    assert (await follow(first, f"{url} x")).status in {400, 401}
    await first.wait_for_downloads(1)
    first.send_signal()
    await until(lambda: first.process.poll() is not None)

    second = start_process()
    assert (await follow(second, url)).body == FILM
    [made] = first.lines("link-created")
    assert (made["job"], made["tokenId"], made["seconds"]) == ("job-1", token_ids(first)[0], 3600)
    await second.wait_for_downloads(2)
    second.send_signal()
    await until(lambda: second.process.poll() is not None)
    written = [first.stderr_file, second.stderr_file, *state_dir.iterdir()]  # noqa: ASYNC240 - nothing else runs now
    for secret in (signature_in(url), wrong, (state_dir / "link.key").read_text().strip()):
        holders = [path.name for path in written if secret.encode() in path.read_bytes()]
        assert holders == (["link.key"] if len(secret) == 64 else [])
    (state_dir / "link.key").unlink()
    assert (await follow(start_process(), url)).status == 401


async def test_two_services_with_one_state_directory_accept_each_others_links(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=FILM)
    first, second = await asyncio.gather(serve(), serve())
    assert (await follow(second, await link_to(first))).body == FILM
    assert (await follow(first, await link_to(second))).body == FILM


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"0" * 64, 0o640, "users other than its owner can read or write it"),
        (b"", 0o600, "not 32 bytes in hex"),
        (b"\0" * 64, 0o600, "not 32 bytes in hex"),
    ],
)
def test_unusable_key_prevents_the_start(
    tmp_path: Path, jobs_root: Path, state_dir: Path, content: bytes, mode: int, reason: str
) -> None:
    (state_dir / "link.key").write_bytes(content)
    (state_dir / "link.key").chmod(mode)
    words = ["serve", str(jobs_root), "--state-dir", str(state_dir), "--port", "0"]
    ended = subprocess.run(
        [sys.executable, "-m", "jobsvc", *words], capture_output=True, timeout=20, check=False
    )
    assert ended.returncode == 2
    [line] = [orjson.loads(line) for line in ended.stderr.splitlines()]
    assert line["event"] == "not-started"
    assert f"{state_dir / 'link.key'}: {reason}" in line["reason"]


async def wait_until_token_is_known(service: Service, token: str) -> None:
    """Wait until the service knows the token."""
    ends = time.monotonic() + 15
    while (await service.get("/api/jobs/none", token=token)).status == 401:
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
