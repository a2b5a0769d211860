"""A browser signs in with a token and then sends a cookie: over a real socket, against the whole service."""

from __future__ import annotations

import time
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state import link_key, token_file
from jobsvc.web.auth import sessions
from tests.clients.raw_http import Answer, Fields, request
from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess, put
from tests.eventually import pause, until, until_equal
from tests.programs.service_runner import Service

HEEDED_WITHIN_S: Final = 2.0
PAGE: Final = ("Sec-Fetch-Site", "same-origin")
JOB: Final = "/api/jobs/job-1"
LARGE: Final = 16 << 20
"""Bytes: more than the sockets between the service and a client hold."""


async def sign_in(service: Service, token: str | None = "", *fields: tuple[str, str]) -> Answer:
    return await service.ask("POST", "/ui/session", [PAGE, *fields], token=token)


async def cookie_of(service: Service, token: str | None = "") -> tuple[str, str]:
    """Sign in and return the Cookie field that a browser then sends."""
    answer = await sign_in(service, token)
    assert answer.status == 204, answer
    return "Cookie", answer.headers["Set-Cookie"].partition(";")[0]


async def by_cookie(
    service: Service, method: str, target: str, *fields: tuple[str, str], body: bytes = b""
) -> Answer:
    return await service.ask(method, target, [PAGE, *fields], token=None, body=body)


def revoke_all(service: Service) -> float:
    """Revoke all tokens; return the time (monotonic seconds)."""
    path = service.state_dir / "tokens.json"
    for token in token_file.load(path):
        token_file.revoke(path, token.id)
    return time.monotonic()


async def test_sign_in_sets_a_cookie_that_no_script_and_no_other_site_can_use(serve: Serve) -> None:
    answer = await sign_in(await serve())
    assert (answer.status, answer.body, answer.headers["Cache-Control"]) == (204, b"", "no-store")
    (cookie,) = answer.headers.getall("Set-Cookie")
    value, *attributes = cookie.split("; ")
    assert value.startswith("jobsvc=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=604800", "Path=/", "SameSite=Strict"]


async def test_cookie_behind_a_trusted_https_proxy_is_bound_to_the_host(serve: Serve) -> None:
    service = await serve(trusted_proxies=(ip_network("127.0.0.1"),))
    https = ("X-Forwarded-Proto", "https")
    cookie = (await sign_in(service, "", https)).headers["Set-Cookie"]
    value, *attributes = cookie.split("; ")
    assert value.startswith("__Host-jobsvc=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=604800", "Path=/", "SameSite=Strict", "Secure"]
    assert (await by_cookie(service, "GET", "/api/me", ("Cookie", value), https)).status == 200
    assert (await by_cookie(service, "GET", "/api/me", ("Cookie", value))).status == 401


async def test_forwarded_protocol_of_a_stranger_is_ignored(serve: Serve) -> None:
    answer = await sign_in(await serve(), "", ("X-Forwarded-Proto", "https"))
    assert answer.headers["Set-Cookie"].startswith("jobsvc=")
    assert "Secure" not in answer.headers["Set-Cookie"]


async def test_sign_in_over_plain_http_at_a_service_for_https_is_refused_with_the_https_address(
    serve: Serve,
) -> None:
    service = await serve(public_url="https://render.example/farm")
    answer = await service.ask("POST", "/ui/session", [("Origin", "http://jobs.example")])
    assert (answer.status, answer.code) == (400, "bad-request")
    assert "Open https://render.example/farm/ instead" in answer.json()["detail"]
    assert "Set-Cookie" not in answer.headers
    wrong = await service.ask("POST", "/ui/session", [("Origin", "http://jobs.example")], token="x" * 43)
    assert (wrong.status, wrong.code) == (401, "unauthorized")
    https = await service.ask("POST", "/ui/session", [("Origin", "https://render.example")])
    assert https.headers["Set-Cookie"].startswith("__Host-jobsvc=")


TARGETS: Final = (
    "/api/jobs",
    "/api/jobs?limit=1&status=completed",
    "/api/jobs?owner=bob",
    "/api/jobs?unknown=1",
    JOB,
    f"{JOB}?wait=0",
    "/api/jobs/bobs",
    "/api/jobs/nothing",
    f"{JOB}/download",
    f"{JOB}/download/film.mp4",
    f"{JOB}/download?version={'A' * 22}",
    f"{JOB}/files",
    f"{JOB}/files/main",
    f"{JOB}/files/main/film.mp4",
    f"{JOB}/archive.tar",
    f"{JOB}/archive.zip",
    f"{JOB}/logs",
    f"{JOB}/logs?tail=1",
    "/api/jobs/bobs/logs",
    "/api/jobs/bobs/download",
    "/api/nothing",
)
PER_RESPONSE: Final = ("X-Request-Id", "Date", "RateLimit", "Age", "Last-Modified", "Connection")
"""Fields that differ between two equal requests."""


@pytest.mark.parametrize(
    "scopes",
    [(JOBS_READ, OUTPUTS_READ), (JOBS_READ,), (OUTPUTS_READ,), (ADMIN,)],
    ids="+".join,
)
async def test_request_by_cookie_has_the_response_of_the_token(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, scopes: Iterable[str]
) -> None:
    make_job(output=b"film", log=b"one\ntwo\n")
    make_job("bobs", owner="bob", output=b"other", log=b"secret\n")
    token = make_token("anna", scopes)
    service = await serve(limit_files="1000000/minute")
    await until_equal(lambda: status_of(service, "/readyz"), 200)
    cookie = await cookie_of(service, token)
    for method in ("GET", "HEAD"):
        for target in TARGETS:
            expected = await service.ask(method, target, token=token)
            answer = await by_cookie(service, method, target, cookie)
            assert described(answer) == described(expected), (method, target)
    body = b'{"expiresIn": 60}'
    for target in (f"{JOB}/download-links", "/api/jobs/bobs/download-links"):
        expected = await service.ask("POST", target, token=token, body=body)
        assert (await by_cookie(service, "POST", target, cookie, body=body)).status == expected.status


def described(answer: Answer) -> tuple[int, Any, dict[str, str]]:
    """Return what two equal requests have in common."""
    body: Any = answer.body
    if answer.headers.get("Content-Type") == "application/problem+json" and body:
        body = {**orjson.loads(body), "requestId": ""}
    return (
        answer.status,
        body,
        {name: value for name, value in answer.headers.items() if name not in PER_RESPONSE},
    )


async def test_cookie_does_not_renew_itself(serve: Serve) -> None:
    service = await serve()
    cookie = await cookie_of(service)
    answer = await by_cookie(service, "POST", "/ui/session", cookie)
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert "Set-Cookie" not in answer.headers


async def test_cookie_is_in_no_response_but_that_of_the_sign_in(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    service = await serve()
    cookie = await cookie_of(service)
    for target in (JOB, "/api/jobs", f"{JOB}/download", "/api/me", "/", "/nothing"):
        answer = await by_cookie(service, "GET", target, cookie)
        assert "Set-Cookie" not in answer.headers
        assert cookie[1].encode() not in answer.body


async def test_requests_by_cookie_and_by_token_share_one_budget(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve(limit_status="2/day")
    cookie = await cookie_of(service)
    assert (await service.get(JOB)).status == 200
    assert (await by_cookie(service, "GET", JOB, cookie)).status == 200
    assert (await service.get(JOB)).status == 429
    answer = await by_cookie(service, "GET", JOB, cookie)
    assert (answer.status, answer.code) == (429, "rate-limited")


async def test_failed_sign_ins_count_as_wrong_tokens(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve(limit_auth_failures="2/day")
    assert (await sign_in(service, "jsvc_" + "x" * 43)).status == 401
    assert (await service.get(JOB, token="jsvc_" + "y" * 43)).status == 401
    answer = await sign_in(service, "jsvc_" + "z" * 43)
    assert (answer.status, answer.code) == (429, "rate-limited")
    assert int(answer.headers["Retry-After"]) > 0
    assert (await sign_in(service)).status == 204  # nobody can lock out the office


async def test_invalid_cookies_are_not_counted_as_guesses(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve(limit_auth_failures="1/day")
    for _ in range(3):
        answer = await by_cookie(service, "GET", JOB, ("Cookie", f"jobsvc=id:{10**12}:{'A' * 43}"))
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="jobsvc"'
    assert (await sign_in(service, "jsvc_" + "x" * 43)).status == 401


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "fields", [[], [("Sec-Fetch-Site", "cross-site")], [("Origin", "https://evil.example")]]
)
async def test_pages_of_other_origins_can_neither_sign_in_nor_out(
    serve: Serve, method: str, fields: Fields
) -> None:
    answer = await (await serve()).ask(method, "/ui/session", fields)
    assert (answer.status, answer.code) == (403, "cross-origin-request")
    assert "Set-Cookie" not in answer.headers


async def test_wrong_token_of_a_page_of_another_origin_is_counted_as_any_other(serve: Serve) -> None:
    service = await serve(limit_auth_failures="1/day")
    elsewhere = [("Sec-Fetch-Site", "cross-site")]
    statuses = [
        (await service.ask("POST", "/ui/session", elsewhere, token=token)).status
        for token in (None, "jsvc_" + "x" * 43, "jsvc_" + "y" * 43, service.token)
    ]
    assert statuses == [401, 401, 429, 403]


async def test_portal_that_may_use_the_api_cannot_use_the_cookie(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    portal = "https://portal.example"
    service = await serve(cors_origins=(portal,))
    cookie = await cookie_of(service)
    for fields in ([("Sec-Fetch-Site", "same-site")], []):
        answer = await service.ask("GET", JOB, [cookie, ("Origin", portal), *fields], token=None)
        assert (answer.status, answer.code) == (403, "cross-origin-request")
        assert "Access-Control-Allow-Credentials" not in answer.headers
    answer = await service.ask("POST", "/ui/session", [("Origin", portal), ("Sec-Fetch-Site", "cross-site")])
    assert (answer.status, answer.code) == (403, "cross-origin-request")


async def test_sign_out_removes_the_cookie_of_any_session(serve: Serve) -> None:
    service = await serve()
    for fields in ([], [await cookie_of(service)], [("Cookie", "jobsvc=junk")]):
        answer = await by_cookie(service, "DELETE", "/ui/session", *fields)
        assert (answer.status, answer.headers["Cache-Control"]) == (204, "no-store")
        value, *attributes = answer.headers["Set-Cookie"].split("; ")
        assert value in {"jobsvc=", 'jobsvc=""'}
        assert {"Max-Age=0", "Path=/", "HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert (await by_cookie(service, "DELETE", "/ui/session?all=1")).code == "bad-request"


@pytest.mark.alone
async def test_session_ends_within_two_seconds_after_its_token_is_revoked(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    service = await serve()
    cookie = await cookie_of(service)
    assert (await by_cookie(service, "GET", JOB, cookie)).status == 200
    revoked = revoke_all(service)
    while (answer := await by_cookie(service, "GET", JOB, cookie)).status == 200:
        await pause()
    assert time.monotonic() - revoked < HEEDED_WITHIN_S
    assert (answer.status, answer.code) == (401, "unauthorized")


@pytest.mark.alone
@pytest.mark.parametrize(
    ("member", "value", "status"), [("owner", "bob", 404), ("scopes", ["outputs:read"], 403)]
)
async def test_session_has_the_owner_and_scopes_that_its_token_has_now(
    serve: Serve, make_job: MakeJob, member: str, value: object, status: int
) -> None:
    make_job()
    service = await serve()
    cookie = await cookie_of(service)
    path = service.state_dir / "tokens.json"
    content = orjson.loads(path.read_bytes())
    content["tokens"][0][member] = value
    put(path, orjson.dumps(content))
    path.chmod(0o600)
    await until_equal(lambda: status_of(service, JOB, cookie), status, HEEDED_WITHIN_S)


async def test_session_ends_when_its_token_expires(serve: Serve, make_token: MakeToken) -> None:
    token = make_token(expires=time.time() + 5)
    service = await serve()
    cookie = await cookie_of(service, token)
    assert (await by_cookie(service, "GET", "/api/me", cookie)).status == 200
    await until_equal(lambda: status_of(service, "/api/me", cookie), 401)


async def status_of(service: Service, target: str, *fields: tuple[str, str]) -> int:
    return (await by_cookie(service, "GET", target, *fields)).status


@pytest.mark.alone
@pytest.mark.parametrize("target", ["/api/events", f"{JOB}/events", f"{JOB}/logs?follow=1"])
async def test_stream_of_a_session_ends_when_its_token_is_revoked(
    serve: Serve, make_job: MakeJob, target: str
) -> None:
    make_job(status="rendering", log=b"one\n")
    service = await serve()
    cookie = await cookie_of(service)
    async with open_event_stream(service, target, [PAGE, cookie], token=None) as stream:
        assert await stream.next() is not None
        revoked = revoke_all(service)
        await stream.read_all()
        assert time.monotonic() - revoked < HEEDED_WITHIN_S
        assert stream.ended_cleanly


@pytest.mark.alone
@pytest.mark.parametrize("target", ["/api/events", f"{JOB}/events", f"{JOB}/logs?follow=1"])
async def test_stream_of_a_session_ends_with_it(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(sessions, "MAX_AGE_S", 4)
    make_job(status="rendering", log=b"one\n")
    service = await serve()
    cookie = await cookie_of(service)
    ends = int(cookie[1].split(":")[1])
    async with open_event_stream(service, target, [PAGE, cookie], token=None) as stream:
        assert await stream.next() is not None
        await stream.read_all()
        assert 0 <= time.time() - ends < HEEDED_WITHIN_S
        assert stream.ended_cleanly


@pytest.mark.alone
async def test_long_poll_of_a_session_ends_with_it(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_AGE_S", 4)
    make_job(status="rendering")
    service = await serve(limit_auth_failures="1/day")
    cookie = await cookie_of(service)
    for _ in range(2):  # it is no wrong token
        answer = await by_cookie(service, "GET", f"{JOB}?wait=10", cookie)
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert 0 <= time.time() - int(cookie[1].split(":")[1]) < HEEDED_WITHIN_S


@pytest.mark.alone
async def test_download_of_a_session_ends_when_its_token_is_revoked(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=bytes(LARGE))
    service = await serve(download_rate=LARGE // 30)
    cookie = await cookie_of(service)
    async with service.connect() as link:
        link.send(request("GET", f"{JOB}/download", [PAGE, cookie]))
        await link.head()
        revoked = revoke_all(service)
        while await link.read(1 << 16):
            pass
        assert time.monotonic() - revoked < HEEDED_WITHIN_S
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["tokenId"]) == (
        "revoked",
        cookie[1].removeprefix("jobsvc=").partition(":")[0],
    )


async def test_film_is_played_and_downloaded_by_cookie_in_ranges(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"0123456789")
    service = await serve()
    cookie = await cookie_of(service)
    part = await by_cookie(
        service, "GET", f"{JOB}/download", cookie, ("Range", "bytes=2-4"), ("Sec-Fetch-Dest", "video")
    )
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert part.headers["Content-Disposition"].startswith("attachment")
    assert part.headers["X-Content-Type-Options"] == "nosniff"
    same = await by_cookie(service, "GET", JOB, cookie)
    again = await by_cookie(service, "GET", JOB, cookie, ("If-None-Match", same.headers["ETag"]))
    assert again.status == 304
    assert same.headers["Cache-Control"] == part.headers["Cache-Control"] == "private, no-cache"


async def test_no_output_is_shown_in_the_page_by_cookie(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"<script>alert(1)</script>", outputPath="output/page.html", log=b"<script>")
    service = await serve()
    cookie = await cookie_of(service)
    for target in (f"{JOB}/download", f"{JOB}/files/main", f"{JOB}/archive.tar", f"{JOB}/archive.zip"):
        answer = await by_cookie(service, "GET", target, cookie)
        assert answer.headers["Content-Disposition"].startswith("attachment"), target
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert (await by_cookie(service, "GET", f"{target}?inline=1", cookie)).status in {400, 401}
    log = await by_cookie(service, "GET", f"{JOB}/logs", cookie)
    assert log.headers["Content-Type"].startswith("text/plain")
    assert log.headers["X-Content-Type-Options"] == "nosniff"


EXECUTED: Final = ("script", "style", "xslt", "worker", "sharedworker", "serviceworker", "audioworklet")


async def test_no_output_can_be_run_as_a_script_of_the_page(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"alert(1)", outputPath="output/main.js", log=b"alert(1)")
    service = await serve()
    cookie = await cookie_of(service)
    link = await service.link("job-1")
    for dest in EXECUTED:
        field = ("Sec-Fetch-Dest", dest)
        for target in (f"{JOB}/download", f"{JOB}/files/main", f"{JOB}/archive.tar", f"{JOB}/logs"):
            answer = await by_cookie(service, "GET", target, cookie, field)
            assert (answer.status, answer.code) == (400, "bad-request"), (dest, target)
        assert (await service.get(link, field, token=None)).code == "bad-request"
        assert (await service.get(f"{JOB}/download", field)).status == 200  # no page can send a token so
    for dest in ("empty", "document", "video", "audio", "image", "track", "iframe", ""):
        assert (
            await by_cookie(service, "GET", f"{JOB}/download", cookie, ("Sec-Fetch-Dest", dest))
        ).status == 200
        assert (await service.get(link, ("Sec-Fetch-Dest", dest), token=None)).status == 200


async def test_link_that_a_session_creates_works_without_it(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    service = await serve()
    cookie = await cookie_of(service)
    made = await by_cookie(service, "POST", f"{JOB}/download-links", cookie)
    assert made.status == 201
    target = f"{JOB}/download{str(made.json()['url']).partition('download')[2]}"
    assert (await service.get(target, token=None)).body == b"film"
    opened = await by_cookie(service, "GET", target, ("Cookie", "jobsvc=junk"))
    assert opened.body == b"film"


async def test_changed_link_is_refused_beside_a_valid_cookie(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    service = await serve()
    target = await service.link("job-1")
    assert (await by_cookie(service, "GET", f"{target}x", await cookie_of(service))).status == 401


async def test_replicas_that_share_the_key_accept_each_others_sessions(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job()
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    link_key.create_shared(secrets / "link.key")
    token, _ = token_file.create(secrets / "tokens.json", "anna", shared=True)
    one, other = await serve(secrets_dir=secrets), await serve(secrets_dir=secrets)
    cookie = await cookie_of(one, token)
    assert (await by_cookie(other, "GET", JOB, cookie)).status == 200


async def test_session_of_a_service_with_another_key_is_refused(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job()
    cookie = await cookie_of(await serve())
    (state_dir / "link.key").unlink()
    assert (await by_cookie(await serve(), "GET", JOB, cookie)).status == 401


async def test_no_log_has_a_cookie(start_process: StartProcess, make_job: MakeJob) -> None:
    make_job(output=b"film")
    service = start_process("--limit-status", "3/day")
    cookie = await cookie_of(service)
    signature = cookie[1].rpartition(":")[2]
    await by_cookie(service, "GET", f"{JOB}/download", cookie)
    for fields in (
        [cookie],
        [("Cookie", f"{cookie[1]}x")],
        [cookie, ("Sec-Fetch-Site", "cross-site")],
        [cookie, cookie],
        [cookie, ("Expect", "x")],
        [("Coo kie", cookie[1])],
        [cookie, ("Transfer-Encoding", "x")],
        [cookie, ("Host", "a/b")],
    ):
        for target in (JOB, f"{JOB}/download?x=1", "/nothing", "/%00", f"/ui/session?{cookie[1]}"):
            await service.ask("GET", target, fields, token=None)
    await service.wait_for_downloads(1)
    text = service.stderr_file.read_text() + (service.state_dir / "downloads.jsonl").read_text()
    assert "cross-origin-request" in text
    assert signature not in text


async def test_log_says_why_a_session_was_refused(start_process: StartProcess, make_job: MakeJob) -> None:
    make_job()
    service = start_process()
    cookie = await cookie_of(service)
    token_id = cookie[1].removeprefix("jobsvc=").partition(":")[0]
    await by_cookie(service, "GET", JOB, ("Cookie", "jobsvc=junk"))
    await service.ask("GET", JOB, [cookie, ("Sec-Fetch-Site", "cross-site")], token=None)
    revoke_all(service)
    await until_equal(lambda: status_of(service, JOB, cookie), 401)
    await until(lambda: len(service.lines("refused")) >= 3)
    lines = [(line["code"], line["reason"], line.get("tokenId")) for line in service.lines("refused")]
    assert lines[:3] == [
        ("unauthorized", "session", None),
        ("cross-origin-request", "origin", None),
        ("unauthorized", "revoked", token_id),
    ]


async def test_without_the_page_there_are_no_sessions(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    cookie = await cookie_of(await serve())
    service = await serve(no_ui=True)
    for method, target in (
        ("GET", "/"),
        ("POST", "/ui/session"),
        ("DELETE", "/ui/session"),
        ("GET", "/ui/a/main.js"),
    ):
        assert (await service.ask(method, target, [PAGE])).code == "not-found"
    answer = await by_cookie(service, "GET", JOB, cookie)
    assert (answer.status, answer.json()["detail"]) == (401, "The request has no bearer token.")
    assert (await service.ask("GET", JOB, [cookie])).status == 200
