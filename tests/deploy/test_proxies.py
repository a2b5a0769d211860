"""Responses through nginx, HAProxy, Caddy and Apache, configured by the files in deploy/."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.clients.raw_http import Connection, request
from tests.conftest import MakeJob
from tests.deploy.conftest import Behind, Front
from tests.deploy.reverse_proxies import FILES
from tests.eventually import pause

JOB = "/api/jobs/job-1"
FILM = bytes(range(256)) * 4096
"""1 MiB."""
WRONG = "jsvc_wrong"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture
async def behind(front: Front, make_job: MakeJob) -> Behind:
    make_job(output=FILM, log=b"one\ntwo\n")
    make_job("job-2", status="rendering", progress=10)
    return await front()


async def test_unchanged_status_is_304(behind: Behind) -> None:
    direct = await behind.service.get(JOB)
    for target in (JOB, "/api/jobs", f"{JOB}?wait=0"):
        first = await behind.get(target, Accept_Encoding="gzip, br, deflate")
        assert first.status == 200
        assert "Content-Encoding" not in first.headers
        again = await behind.get(target, If_None_Match=first.headers["ETag"])
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert (await behind.get(JOB)).headers["ETag"] == direct.headers["ETag"]


async def test_downloads_and_ranges_are_byte_exact(behind: Behind) -> None:
    target = f"{JOB}/download"
    whole = await behind.get(target)
    assert (whole.status, whole.body) == (200, FILM)
    assert whole.headers["Content-Length"] == str(len(FILM))
    etag = whole.headers["ETag"]
    rest = await behind.get(target, Range="bytes=1000000-", If_Range=etag)
    assert (rest.status, rest.body) == (206, FILM[1_000_000:])
    assert rest.headers["Content-Range"] == f"bytes 1000000-{len(FILM) - 1}/{len(FILM)}"
    assert (await behind.get(target, Range="bytes=5-", If_Range='"other"')).body == FILM
    several = await behind.get(target, Range="bytes=0-9,100-109")
    assert several.status == 206
    assert several.headers["Content-Type"].startswith("multipart/byteranges")
    beyond = await behind.get(target, Range="bytes=99999999-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(FILM)}")
    head = await behind.ask("HEAD", target)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(FILM)), b"")


async def test_event_arrives_while_its_stream_is_open(behind: Behind, make_job: MakeJob) -> None:
    headers = {"Authorization": f"Bearer {behind.service.token}", "Accept-Encoding": "gzip, br"}
    for target in ("/api/events", "/api/jobs/job-2/events"):
        async with behind.session() as session, session.get(behind.url(target), headers=headers) as response:
            assert response.status == 200
            progress = 11 if target == "/api/events" else 12
            async with asyncio.timeout(10):
                while b"job-2" not in await response.content.readline():
                    pass
                make_job("job-2", status="rendering", progress=progress)
                while b'"progress":%d' % progress not in await response.content.readline():
                    pass


async def test_line_arrives_while_the_log_is_followed(behind: Behind, make_job: MakeJob) -> None:
    folder = make_job("job-2", status="rendering", log=b"one\n")
    headers = {"Authorization": f"Bearer {behind.service.token}"}
    url = behind.url("/api/jobs/job-2/logs?follow=1")
    async with behind.session() as session, session.get(url, headers=headers) as response:
        async with asyncio.timeout(10):
            while await response.content.readline() != b"data: one\n":
                pass
            append(folder / "render.log", b"two\n")
            while await response.content.readline() != b"data: two\n":
                pass


async def test_long_poll_is_answered_by_a_change_or_when_it_ends(behind: Behind, make_job: MakeJob) -> None:
    target = "/api/jobs/job-2"
    etag = (await behind.get(target)).headers["ETag"]
    assert (await behind.get(f"{target}?wait=1", If_None_Match=etag)).status == 304
    waiting_request = asyncio.create_task(behind.get(f"{target}?wait=50", If_None_Match=etag))
    async with asyncio.timeout(10):
        while await behind.metric("jobsvc_requests_waiting") != 1:
            await pause()
    make_job("job-2", status="rendering", progress=50)
    answer = await asyncio.wait_for(waiting_request, 10)
    assert (answer.status, orjson.loads(answer.body)["progress"]) == (200, 50)


async def test_client_that_left_gives_up_its_stream_and_its_long_poll(behind: Behind) -> None:
    if behind.proxy.name == "Apache":
        pytest.skip("Apache notices it when it sends the next comment")
    for target, metric in (
        ("/api/jobs/job-2/events", 'jobsvc_event_streams{of="job"}'),
        ("/api/jobs/job-2?wait=50", "jobsvc_requests_waiting"),
    ):
        client = await Connection.open(behind.proxy.port, tls=behind.proxy.tls)
        client.send(request("GET", target, token=behind.service.token))
        for expected in (1, 0):
            async with asyncio.timeout(10):
                while await behind.metric(metric) != expected:
                    await pause()
            client.writer.transport.abort()


@pytest.mark.parametrize("name", FILES)
def test_no_timeout_of_a_proxy_is_shorter_than_the_longest_wait(name: str) -> None:
    """Caddy has none."""
    text = FILES[name].read_text("utf-8")
    found = re.findall(r"(?:proxy_read_timeout|timeout (?:client|server)|\btimeout=) *(\d+)", text)
    assert all(int(seconds) >= 90 for seconds in found)
    assert bool(found) == (name != "Caddy")


async def test_error_documents_pass_unchanged(behind: Behind) -> None:
    for target, fields, status, code in (
        ("/api/jobs/unknown", {}, 404, "job-not-found"),
        ("/api/nowhere", {}, 404, "not-found"),
        ("/api/jobs/job-2/download", {}, 409, "job-not-completed"),
        (JOB, {"If_Match": '"other"'}, 412, "precondition-failed"),
        (f"{JOB}/download", {"Range": "bytes=99999999-"}, 416, "range-not-satisfiable"),
        (f"{JOB}?wiat=1", {}, 400, "bad-request"),
    ):
        answer = await behind.get(target, **fields)
        assert (answer.status, orjson.loads(answer.body)["code"]) == (status, code)
        assert answer.headers["Content-Type"] == "application/problem+json"
    refused = await behind.get(JOB, token=None)
    assert (refused.status, orjson.loads(refused.body)["code"]) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="jobsvc"'


async def test_too_large_body_is_413(behind: Behind) -> None:
    answer = await behind.ask("POST", f"{JOB}/download-links", body=b" " * 100_000)
    assert (answer.status, orjson.loads(answer.body)["code"]) == (413, "content-too-large")


async def test_too_long_target_is_414(behind: Behind) -> None:
    answer = await behind.get(f"/api/jobs/{'x' * 9000}")
    assert answer.status == 414


async def test_too_large_field_is_431_or_the_400_of_the_proxy(behind: Behind) -> None:
    """nginx and Apache have limits of their own, of 8 kB."""
    answer = await behind.get(JOB, X_Large="x" * 10_000)
    assert answer.status == (400 if behind.proxy.name in {"nginx", "Apache"} else 431)
    if answer.status == 431:
        assert orjson.loads(answer.body)["code"] == "request-header-fields-too-large"


async def test_each_method_gets_its_response(behind: Behind) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "POST"):
        answer = await behind.ask(method, JOB)
        assert (answer.status, orjson.loads(answer.body)["code"]) == (405, "method-not-allowed"), method
        assert set(re.findall(r"\w+", answer.headers["Allow"])) == {"GET", "HEAD"}
    head = await behind.ask("HEAD", JOB)
    assert (head.status, head.body) == (200, b"")


async def test_only_the_page_and_the_api_are_passed_on(behind: Behind) -> None:
    for target in ("/healthz", "/readyz", "/metrics", "/ui", "/uix/a", "/index.html", "/api", "//metrics"):
        answer = await behind.get(target)
        assert answer.status in {403, 404}, target
        assert b"jobsvc_" not in answer.body


async def test_page_is_passed_on_with_its_files(behind: Behind) -> None:
    direct = await behind.service.get("/")
    for target in ("/", "/?job=a%20b&view=log"):
        page = await behind.get(target, token=None, Accept_Encoding="gzip, br")
        assert (page.status, page.body) == (200, direct.body)
        assert page.headers["Content-Security-Policy"] == direct.headers["Content-Security-Policy"]
        assert (await behind.get(target, token=None, If_None_Match=page.headers["ETag"])).status == 304
    (script,) = re.findall(r'src="(ui/[^"]*)"', direct.body.decode())
    file = await behind.get(f"/{script}", token=None)
    assert (file.status, file.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert "immutable" in file.headers["Cache-Control"]


async def test_browser_signs_in_by_https_and_every_replica_accepts_its_cookie(behind: Behind) -> None:
    without_fetch_metadata: dict[str, Any] = {"Origin": f"https://localhost:{behind.proxy.port}"}
    for fields in (without_fetch_metadata, {"Sec_Fetch_Site": "same-origin"}):
        signed_in = await behind.ask("POST", "/ui/session", **fields)
        assert signed_in.status == 204
        cookie = signed_in.headers["Set-Cookie"]
        assert cookie.startswith("__Host-jobsvc=")
        assert "Secure" in cookie
        sent: dict[str, Any] = {"Cookie": cookie.partition(";")[0], **fields}
        for _ in range(4):
            assert (await behind.get(JOB, token=None, **sent)).status == 200
        made = await behind.ask("POST", f"{JOB}/download-links", token=None, body=b"{}", **sent)
        assert made.status == 201
        signed_out = await behind.ask("DELETE", "/ui/session", token=None, **sent)
        assert signed_out.headers["Set-Cookie"].startswith("__Host-jobsvc=")
    foreign = await behind.ask("POST", "/ui/session", Origin="https://evil.example")
    assert (foreign.status, orjson.loads(foreign.body)["code"]) == (403, "cross-origin-request")


async def test_proxy_offers_http_2_because_browsers_then_have_more_than_six_requests(behind: Behind) -> None:
    context = ssl.create_default_context(cafile=behind.proxy.folder / "certificate")
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("localhost", behind.proxy.port, ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()


async def test_link_works_exactly_as_returned(behind: Behind) -> None:
    made = await behind.ask("POST", f"{JOB}/download-links", body=b"{}")
    assert made.status == 201
    url = orjson.loads(made.body)["url"]
    assert url.startswith(f"https://localhost:{behind.proxy.port}/api/")
    target = re.sub(r"^https?://[^/]+", "", url)
    assert (await behind.get(target, token=None)).body == FILM
    assert (await behind.get(f"{target}x", token=None)).status == 401


async def test_encoded_target_is_passed_on_unchanged(behind: Behind) -> None:
    assert (await behind.get("/api/jobs/job%2D1")).status == 200
    for job_id in ("job-1%2Fdownload", "..%2Fjob-1", "job-1%00", "%2e%2e"):
        assert (await behind.get(f"/api/jobs/{job_id}")).status in {400, 404}, job_id


async def test_failed_tokens_count_against_the_address_that_the_trusted_proxy_forwards(
    front: Front, make_job: MakeJob
) -> None:
    make_job()
    behind = await front(count=1, limit_auth_failures="2/hour")

    async def status(address: str, **fields: str) -> int:
        return (await behind.get(JOB, token=WRONG, address=address, **fields)).status

    assert [await status("127.0.0.2") for _ in range(3)] == [401, 401, 429]
    assert await status("127.0.0.3") == 401
    # Fields that a client sends itself are ignored.
    for claimed in ("203.0.113.7", "127.0.0.1", "203.0.113.7, 127.0.0.1"):
        assert await status("127.0.0.2", X_Forwarded_For=claimed) == 429
        assert await status("127.0.0.2", Forwarded=f"for={claimed}") == 429


async def test_forwarded_fields_are_ignored_without_a_trusted_proxy(front: Front, make_job: MakeJob) -> None:
    make_job()
    behind = await front(count=1, limit_auth_failures="2/hour", trusted_proxies=())
    addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    statuses = [(await behind.get(JOB, token=WRONG, address=each)).status for each in addresses]
    assert statuses == [401, 401, 429]


async def test_preflight_and_response_of_another_origin_pass_unchanged(
    front: Front, make_job: MakeJob
) -> None:
    make_job()
    origin = "https://portal.example.com"
    behind = await front(count=1, cors_origins=(origin,))
    preflight = await behind.ask("OPTIONS", JOB, Origin=origin, Access_Control_Request_Method="GET")
    assert (preflight.status, preflight.headers["Access-Control-Allow-Methods"]) == (204, "GET, HEAD, POST")
    for answer in (preflight, await behind.get(JOB, Origin=origin)):
        assert answer.headers.getall("Access-Control-Allow-Origin") == [origin]
        assert answer.headers.getall("Vary") == ["Origin"]


async def test_slow_client_delays_no_other(behind: Behind) -> None:
    headers = {"Authorization": f"Bearer {behind.service.token}"}
    async with (
        behind.session() as session,
        session.get(behind.url(f"{JOB}/download"), headers=headers) as response,
    ):
        assert response.status == 200
        started_at = time.monotonic()
        assert (await behind.get(JOB)).status == 200
        assert time.monotonic() - started_at < 5
