"""Lines of the download log: one for each download that ended, and no secret anywhere."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import re
import stat
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from ipaddress import ip_network
from typing import Any, Final, NoReturn

import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ
from jobsvc.storage.state.token_file import load
from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Connection, IncompleteAnswer, request
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import pause, until
from tests.programs.service_runner import Process

FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "when": str,
    "requestId": str,
    "traceId": (str, type(None)),
    "tokenId": str,
    "client": str,
    "byLink": bool,
    "link": (str, type(None)),
    "owner": str,
    "job": str,
    "file": str,
    "etag": str,
    "range": (str, type(None)),
    "bytesSent": int,
    "bytesPromised": int,
    "seconds": (int, float),
    "outcome": str,
    "instance": str,
}
DOWNLOAD: Final = "/api/jobs/job-1/download"
SMALL: Final = random.Random(7).randbytes(10_000)  # noqa: S311 - only bytes that differ, as below
LARGE: Final = random.Random(8).randbytes(24_000_000)  # noqa: S311
"""More than all the buffers between service and client hold."""


def assert_complete_line(line: dict[str, Any]) -> bool:
    """Check what every line has."""
    assert line.keys() == FIELDS.keys()
    assert [name for name, kind in FIELDS.items() if not isinstance(line[name], kind)] == []
    assert 0 <= line["bytesSent"] <= line["bytesPromised"]
    assert (line["outcome"] == "complete") == (line["bytesSent"] == line["bytesPromised"])
    started_at = datetime.fromisoformat(line["when"])
    assert started_at.tzinfo is not None
    assert started_at.timestamp() + line["seconds"] <= time.time() + 0.01
    return True


@pytest.mark.parametrize("film", [SMALL, LARGE[:300_000], b""], ids=["small", "streamed", "empty"])
async def test_download_is_one_line_with_client_file_and_bytes(
    serve: Serve, make_job: MakeJob, film: bytes
) -> None:
    make_job(output=film, outputPath="output/größe 1.mp4")
    service, size, started_at = await serve(), len(film), time.time()
    requests: dict[str | None, tuple[str | None, int]] = {None: (None, size)}
    if film:
        requests["bytes=5-14"] = (f"bytes 5-14/{size}", 10)
        requests[f"bytes=5-{size}"] = (f"bytes 5-{size - 1}/{size}", size - 5)
        requests["bytes=5000-5009,0-9"] = (f"bytes 5000-5009/{size}, bytes 0-9/{size}", 20)
        requests["bytes=0-9,10-19"] = (f"bytes 0-19/{size}", 20)
        requests["bytes=x"] = (None, size)
    for count, (field, (range_, promised)) in enumerate(requests.items(), 1):
        fields = (("Range", field),) if field else ()
        answer = await service.download("job-1", *fields, ("X-Request-Id", f"asked-{count}"))
        line = (await service.wait_for_downloads(count))[-1]
        assert assert_complete_line(line)
        assert (line["range"], line["bytesSent"], line["outcome"]) == (range_, promised, "complete")
        assert line["requestId"] == answer.headers["X-Request-Id"] == f"asked-{count}"
        assert line["etag"] == answer.headers["ETag"]
        assert line["tokenId"] == load(service.state_dir / "tokens.json")[0].id
        assert (line["owner"], line["job"], line["file"]) == ("anna", "job-1", "größe 1.mp4")
        assert datetime.fromisoformat(line["when"]).timestamp() > started_at - 0.01
    sent = sum(line["bytesSent"] for line in service.downloads())
    assert await service.metric("jobsvc_download_bytes_total") == sent
    assert await service.metric('jobsvc_downloads_total{outcome="complete"}') == len(requests)


async def test_log_is_private_and_has_the_owner_and_the_token(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=SMALL)
    admin = make_token("ops", [ADMIN])
    service = await serve()
    await service.download("job-1", token=admin)
    [line] = await service.wait_for_downloads(1)
    ids = {token.owner: token.id for token in load(service.state_dir / "tokens.json")}
    assert (line["owner"], line["tokenId"]) == ("anna", ids["ops"])
    mode = os.stat(service.state_dir / "downloads.jsonl").st_mode  # noqa: PTH116 - a moment
    assert stat.S_IMODE(mode) == 0o600


async def test_response_without_file_bytes_is_not_a_download(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=SMALL)
    make_job("queued")
    make_job("missing", status="completed", outputPath="output/film.mp4")
    looks = make_token(scopes=[JOBS_READ])
    service = await serve(limit_download="8/hour")  # 304 responses consume almost no budget
    async with service.connect() as link:
        for status, method, job, fields, token in (
            (200, "HEAD", "job-1", [], service.token),
            (304, "GET", "job-1", [("If-None-Match", "*")], service.token),
            (412, "GET", "job-1", [("If-Match", '"other"')], service.token),
            (416, "GET", "job-1", [("Range", "bytes=10000-")], service.token),
            (405, "POST", "job-1", [], service.token),
            (417, "GET", "job-1", [("Expect", "miracles")], service.token),
            (404, "GET", "unknown", [], service.token),
            (404, "GET", "missing", [], service.token),
            (409, "GET", "queued", [], service.token),
            (401, "GET", "job-1", [], None),
            (403, "GET", "job-1", [], looks),
            (200, "HEAD", "job-1", [], service.token),
            (200, "GET", "job-1", [], service.token),
            (429, "GET", "job-1", [], service.token),
        ):
            answer = await link.ask(method, f"/api/jobs/{job}/download", fields, token=token)
            assert answer.status == status
    assert [line["outcome"] for line in await service.wait_for_downloads(1)] == ["complete"]


async def vanishes(link: Connection) -> None:
    await link.read(1_000_000)
    await link.reset()


async def closes(link: Connection) -> None:
    await link.read(1_000_000)
    await link.close()


async def leaves_before_the_first_byte(link: Connection) -> None:
    await link.reset()


async def reads_nothing_more(link: Connection) -> None:
    await link.read(1_000_000)


ENDS: Final[tuple[Callable[[Connection], Coroutine[Any, Any, None]], ...]] = (
    vanishes,
    closes,
    leaves_before_the_first_byte,
    reads_nothing_more,
)


@pytest.mark.both_loops
@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ends.__name__)
@pytest.mark.parametrize("field", [None, "bytes=100-", "bytes=0-9,1000-23999999"])
async def test_disconnect_and_stall_are_distinguished_from_a_complete_download(
    serve: Serve,
    make_job: MakeJob,
    ends: Callable[[Connection], Coroutine[Any, Any, None]],
    field: str | None,
) -> None:
    make_job(output=LARGE)
    # A client that is only slow, on a busy machine, is no subject of the others.
    service = await serve(send_timeout=1.5 if ends is reads_nothing_more else 20)
    async with service.connect(receive_buffer=65_536) as link:
        fields = [("Range", field)] if field else []
        link.send(request("GET", DOWNLOAD, fields, token=service.token))
        assert (await link.head())[1] == (206 if field else 200)
        await ends(link)
        [line] = await service.wait_for_downloads(1)
    assert assert_complete_line(line)
    assert line["outcome"] == "client-gone"
    assert line["bytesPromised"] == {None: 24_000_000, "bytes=100-": 23_999_900}.get(field, 23_999_010)
    if ends is not leaves_before_the_first_byte:
        assert line["bytesSent"] >= 999_000
    assert await service.metric('jobsvc_downloads_total{outcome="client-gone"}') == 1
    assert await service.metric("jobsvc_downloads_in_progress") == 0


def fail() -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.both_loops
async def test_storage_error_is_distinguished_from_a_disconnect(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(output=LARGE)
    service, bad = await serve(), 1_000_000
    sendfile, pread = os.sendfile, os.pread

    def failing_sendfile(out: int, file: int, offset: int, count: int) -> int:
        return sendfile(out, file, offset, count) if offset < bad else fail()

    def failing_pread(file: int, count: int, offset: int) -> bytes:
        return pread(file, count, offset) if offset < bad else fail()

    monkeypatch.setattr(os, "sendfile", failing_sendfile)
    monkeypatch.setattr(os, "pread", failing_pread)
    async with service.connect() as link:
        link.send(request("GET", DOWNLOAD, token=service.token))
        with pytest.raises(IncompleteAnswer):
            await link.answer()
        assert await link.ended()
    [line] = await service.wait_for_downloads(1)
    assert assert_complete_line(line)
    assert line["outcome"] == "storage-error"
    assert await service.metric('jobsvc_downloads_total{outcome="storage-error"}') == 1


async def test_parallel_downloads_are_separate_lines(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=LARGE[:200_000])
    service = await serve(max_downloads_per_token=100)
    answers = await asyncio.gather(*(service.download("job-1") for _ in range(60)))
    lines = await service.wait_for_downloads(60)
    assert all(assert_complete_line(line) for line in lines)
    assert {line["requestId"] for line in lines} == {answer.headers["X-Request-Id"] for answer in answers}
    assert len({line["requestId"] for line in lines}) == 60


async def test_unwritable_log_fails_no_download_and_is_counted(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=SMALL)
    service = await serve()
    log = service.state_dir / "downloads.jsonl"
    log.mkdir()
    for _ in range(3):
        assert (await service.download("job-1")).body == SMALL
    async with asyncio.timeout(20):
        while await service.metric("jobsvc_download_log_errors_total") < 3:
            await pause()
    log.rmdir()
    assert (await service.download("job-1")).body == SMALL
    await service.wait_for_downloads(1)


def mistakes(secret: str) -> Iterator[bytes]:
    """Requests with a secret in every place where a client might put one by mistake; the result does not
    matter.
    """
    status = "/api/jobs/job-1"
    for target in (
        *(
            f"{status}?access_token={secret}",
            f"{status}/download?token={secret}",
            f"/{secret}",
            f"//{secret}",
        ),
        *(f"/api/jobs/{secret}", f"/api/jobs/{secret}/download", f"{status}/{secret}", f"?{secret}"),
        *(f"{status}/download?token=a&expires=1&signature={secret}", f"{status}#{secret}", f"{secret}"),
        *(f"http://{secret}@jobs.example{status}", f"http://{secret}/", f"/%00{secret}", f"/{secret}\0"),
    ):
        yield request("GET", target)
    for name in (
        *("Authorization", "Proxy-Authorization", "Cookie", "User-Agent", "Referer", "X-Request-Id", "Host"),
        *("Range", "If-None-Match", "If-Range", "If-Modified-Since", "Expect", "Upgrade", "Connection"),
        *("Content-Type", "Content-Encoding", "Transfer-Encoding", "Content-Length", "X-Forwarded-For"),
        *("Cache-Control", "Accept-Encoding", "X ", ""),
    ):
        for value in (secret, f"Bearer {secret}", f"x={secret}, {secret}\0"):
            yield request("GET", f"{status}/download", [(name, value)])
    yield request(secret, "/healthz")
    yield f"GET /healthz {secret}\r\n\r\n".encode()
    yield f"GET /healthz HTTP/1.1 {secret}\r\n\r\n".encode()
    yield f"{secret}\r\n\r\n".encode()
    yield request("GET", "/healthz", [(secret, "x")])
    yield request("GET", "/healthz", [(f"X-Long: {'x' * 20_000}", secret)])
    yield request("GET", f"/{'x' * 20_000}{secret}")
    links = f"{status}/download-links"
    for token in (None, secret):
        yield request("POST", links, token=token, body=secret.encode())
        yield request("POST", links, token=token, body=f'{{"{secret}": "{secret}"}}'.encode())
        yield request("POST", links, [("Transfer-Encoding", "chunked")], token=token) + secret.encode()
        yield request("POST", links, [("Content-Type", secret)], token=token, body=secret.encode() * 2000)
        yield request("GET", f"{status}?{secret}", [("Referer", f"/?token={secret}")], token=token)
        yield request("DELETE", f"{status}?{secret}", [("Cookie", secret)], token=token)


async def make_all_mistakes(service: Process, secret: str) -> set[int]:
    """Make every mistake with a secret, each on a connection of its own; return the statuses."""
    statuses = set()
    for data in mistakes(secret):
        async with service.connect() as link, asyncio.timeout(RESPONSE_TIMEOUT_S):
            link.send(data)
            statuses.add((await link.head())[1])
    return statuses


async def test_no_token_and_no_signature_is_written_anywhere(
    start_process: StartProcess, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=LARGE)
    good = make_token()
    words = ("--trusted-proxy", "127.0.0.1", "--limit-auth-failures", "1000000/minute")
    service = start_process(*words, module="tests.programs.without_line_limit")
    link = await service.link("job-1", token=good)
    assert (await service.get(link, token=None)).body == LARGE
    signature = link.rpartition("=")[2]
    for secret in (good, "jsvc_" + "A" * 43, signature):
        expected = {400, 401, 404, 417} | ({413} if secret is good else set())
        assert expected <= await make_all_mistakes(service, secret) <= {*range(200, 500), 501, 505}
    async with service.connect(receive_buffer=65_536) as left:
        left.send(request("GET", link))
        await left.head()
        await left.reset()
    await until(lambda: any(line["outcome"] == "client-gone" for line in service.downloads()))
    service.send_signal()
    await until(lambda: service.process.poll() is not None)
    assert service.lines("request-failed") == []
    written = {path.name: path.read_bytes() for path in [service.stderr_file, *service.state_dir.iterdir()]}
    assert len(written["downloads.jsonl"]) > 100
    assert len(written[service.stderr_file.name].splitlines()) > 200
    digest = load(service.state_dir / "tokens.json")[0].digest
    for hidden in (*encodings(good.removeprefix("jsvc_")), *encodings(signature), b"A" * 43):
        assert [name for name, data in written.items() if hidden in data] == []
    assert [name for name, data in written.items() if digest.hex().encode() in data] == ["tokens.json"]


def encodings(secret: str) -> Iterator[bytes]:
    """Return the forms of a secret that are searched for: plain, in JSON, in hex, in base64 at any offset."""
    yield secret.encode()
    yield json.dumps(secret).encode()
    yield secret.encode().hex().encode()
    for offset in range(3):
        yield re.sub(rb"=+", b"", b64encode(secret[offset : offset + 39].encode()))


async def test_line_has_the_client_address_and_whether_a_link_was_used(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=SMALL)
    service = await serve(trusted_proxies=(ip_network("127.0.0.1"),))
    link = await service.link("job-1")
    forwarded = ("X-Forwarded-For", "198.51.100.9, 192.0.2.7:4711")
    for target, fields, token in (
        (DOWNLOAD, (), service.token),
        (DOWNLOAD, (forwarded,), service.token),
        (DOWNLOAD, (("X-Forwarded-For", "unknown"),), service.token),
        (DOWNLOAD, (("X-Forwarded-For", '"[2001:db8::1]:80"'),), service.token),
        (link, (forwarded,), None),
        (link, (), service.token),
    ):
        assert (await service.get(target, *fields, token=token)).status == 200
    assert [(line["client"], line["byLink"]) for line in await service.wait_for_downloads(6)] == [
        ("127.0.0.1", False),
        ("192.0.2.7", False),
        ("127.0.0.1", False),
        ("2001:db8::1", False),
        ("192.0.2.7", True),
        ("127.0.0.1", False),
    ]
