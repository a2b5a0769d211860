"""Two replicas behind each reverse proxy of deploy/: one that is away, not ready, or gives no answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import orjson
import pytest

from tests.conftest import MakeJob, MakeToken
from tests.deploy.conftest import Behind, Front, Replica, Response
from tests.deploy.reverse_proxies import PROGRAMS
from tests.eventually import pause
from tests.programs.external_programs import needs

JOB = "/api/jobs/job-1"
COUNTED = 'jobsvc_requests_total{code="200",method="GET",route="/api/jobs/{id}"}'
DEADLINE_S = 20


def only(*names: str) -> pytest.MarkDecorator:
    """Run a test with these proxies: nginx has no health checks, and Apache no choice by a header."""
    proxies = [pytest.param(name, marks=needs(PROGRAMS[name], "openssl")) for name in names]
    return pytest.mark.parametrize("front", proxies, indirect=True)


@pytest.fixture
async def behind(front: Front, make_job: MakeJob) -> Behind:
    make_job(output=b"a film")
    return await front()


async def counts_of(behind: Behind) -> list[float]:
    """Return how many requests each replica has answered."""
    return [await replica.service.metric(COUNTED) for replica in behind.replicas]


async def wait_until_used(behind: Behind, replica: Replica) -> None:
    """Send requests until this replica answers one."""
    before = await replica.service.metric(COUNTED)
    async with asyncio.timeout(DEADLINE_S):
        while await replica.service.metric(COUNTED) == before:
            assert (await behind.get(JOB)).status == 200
            await pause()


async def wait_until_unused(behind: Behind, replica: Replica) -> None:
    """Send requests until this replica answers none of ten in a row."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            before = await replica.service.metric(COUNTED)
            for _ in range(10):
                await behind.get(JOB)
            if await replica.service.metric(COUNTED) == before:
                return
            await pause()


async def test_no_request_fails_while_a_replica_restarts(behind: Behind) -> None:
    for replica in behind.replicas:
        await wait_until_used(behind, replica)
    first = behind.replicas[0]
    await first.stop()
    answers = await asyncio.gather(*(behind.get(JOB) for _ in range(20)))
    link = await behind.ask("POST", f"{JOB}/download-links", body=b"{}")
    assert {answer.status for answer in answers} == {200}
    assert link.status == 201
    await first.start()
    await wait_until_used(behind, first)


@only("HAProxy", "Caddy", "Apache")
async def test_replica_that_is_not_ready_is_not_used(front: Front, make_job: MakeJob) -> None:
    make_job(output=b"a film")
    behind = await front(own_roots=True)
    first, second = behind.replicas
    first.settings.jobs_root.rename(first.settings.jobs_root.with_suffix(".away"))
    await wait_until_unused(behind, first)
    assert (await behind.get(JOB)).status == 200
    # Storage is away for both: the proxy has no better answer than they have.
    second.settings.jobs_root.rename(second.settings.jobs_root.with_suffix(".away"))
    async with asyncio.timeout(DEADLINE_S):
        while (await second.service.get("/readyz", token=None)).status == 200:
            await pause()
    for _ in range(DEADLINE_S):
        answer = await behind.get(JOB)
        assert (answer.status, orjson.loads(answer.body)["id"]) == (200, "job-1")
        await asyncio.sleep(0.2)


@only("nginx", "HAProxy", "Caddy")
async def test_client_gets_one_replica_with_the_lines_of_the_comment(
    front: Front, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=b"a film")
    others = [make_token() for _ in range(20)]
    behind = await front(sticky=True)
    for _ in range(10):
        assert (await behind.get(JOB)).status == 200
    counts = await counts_of(behind)
    assert sorted(counts) == [0, 10]
    for token in others:
        await behind.get(JOB, token=token)
    assert all(await counts_of(behind))


@only("nginx", "HAProxy")
async def test_session_of_a_browser_gets_one_replica_with_the_lines_of_the_comment(
    front: Front, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=b"a film")
    tokens = [make_token() for _ in range(20)]
    behind = await front(sticky=True)
    cookies = [await cookie_of(behind, token) for token in tokens]
    for _ in range(10):
        assert (await by_cookie(behind, f"a=b; {cookies[0]}; c=d")).status == 200
    counts = await counts_of(behind)
    assert sorted(counts) == [0, 10]
    for cookie in cookies:
        assert (await by_cookie(behind, cookie)).status == 200
    assert all(await counts_of(behind))
    again = await cookie_of(behind, tokens[0])  # signed in again, or in another browser
    before = await counts_of(behind)
    assert (await by_cookie(behind, again)).status == 200
    after = await counts_of(behind)
    assert [new - old for new, old in zip(after, before, strict=True)] == [count / 10 for count in counts]


async def cookie_of(behind: Behind, token: str) -> str:
    """Sign in and return the value of the Cookie field."""
    signed_in = await behind.ask("POST", "/ui/session", token=token, Sec_Fetch_Site="same-origin")
    return str(signed_in.headers["Set-Cookie"]).partition(";")[0]


async def by_cookie(behind: Behind, cookie: str) -> Response:
    return await behind.get(JOB, token=None, Cookie=cookie, Sec_Fetch_Site="same-origin")


async def test_access_and_error_logs_have_no_signature_of_a_link(behind: Behind) -> None:
    made = await behind.ask("POST", f"{JOB}/download-links", body=b"{}")
    target = re.sub(r"^https?://[^/]+", "", orjson.loads(made.body)["url"])
    assert (await behind.get(target, token=None)).status == 200
    for replica in behind.replicas:
        await replica.stop()
    assert (await behind.get(target, token=None)).status in {502, 503}
    logs = "".join(
        file.read_text(errors="replace") for file in behind.proxy.folder.glob("*") if file.is_file()
    )
    assert "/api/jobs/job-1/download" in logs
    assert target.partition("signature=")[2] not in logs
    assert behind.replicas[0].token not in logs


async def test_post_that_was_sent_is_not_sent_again(front: Front, make_job: MakeJob) -> None:
    """A GET is; the replicas here end each connection when they have received a request."""
    make_job()
    behind = await front()
    for replica in behind.replicas:
        await replica.stop()
    heads: list[bytes] = []
    async with silent_server(behind.replicas[0], heads), silent_server(behind.replicas[1], heads):
        answer = await behind.ask("POST", f"{JOB}/download-links", body=b"{}")
        assert answer.status == 502
    assert [head.split()[0] for head in heads if not head.startswith(b"GET /readyz")] == [b"POST"]


@asynccontextmanager
async def silent_server(replica: Replica, heads: list[bytes]) -> AsyncIterator[None]:
    """Accept connections in place of a replica, read a request of each and close it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", replica.settings.port):
        yield
