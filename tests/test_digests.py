"""`Repr-Digest` of downloads and `outputSha256` of jobs, requested over sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from jobsvc.index.digests import digest_service
from tests.clients.raw_http import Answer, request
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess, put
from tests.eventually import until
from tests.programs.external_programs import needs, run
from tests.programs.service_runner import Service

FILM: Final = bytes(range(256)) * 400
OTHER: Final = FILM[::-1]
WANT: Final = ("Want-Repr-Digest", "sha-256=1")
DOWNLOAD: Final = "/api/jobs/job-1/download"


def field(data: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


def digest_in(answer: Answer) -> str | None:
    fields: list[str] = answer.headers.getall("Repr-Digest", [])
    assert len(fields) <= 1
    return fields[0] if fields else None


async def head(service: Service, *fields: tuple[str, str], job: str = "job-1") -> Answer:
    return await service.ask("HEAD", f"/api/jobs/{job}/download", fields)


async def status(service: Service, *fields: tuple[str, str], job: str = "job-1") -> Any:
    answer = await service.get(f"/api/jobs/{job}", *fields)
    assert answer.status == 200
    return answer.json()


async def eventually_true(ask: Callable[[], Awaitable[Any]], deadline: float = 20) -> None:
    """Repeat a request until its result is true."""
    ends = time.monotonic() + deadline
    while not await ask():
        assert time.monotonic() < ends, f"not true within {deadline} s"
        await asyncio.sleep(0.005)


async def known_digest(
    service: Service, data: bytes = FILM, job: str = "job-1", deadline: float = 20
) -> None:
    """Request the digest until it is available, and check that it is that of `data`."""

    async def there() -> bool:
        found = digest_in(await head(service, WANT, job=job))
        return found == field(data)

    await eventually_true(there, deadline)


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat new files as stable."""
    monkeypatch.setattr(digest_service, "TIMESTAMP_GRANULARITY_NS", 0)


at_once = pytest.mark.usefixtures("_at_once")


@pytest.fixture
async def service(_at_once: None, serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM)
    return await serve()


async def test_first_response_has_no_digest_and_later_ones_have_it(service: Service) -> None:
    first = await head(service, WANT)
    assert (first.status, digest_in(first)) == (200, None)
    await known_digest(service)
    whole = await service.download("job-1", WANT)
    assert (whole.status, whole.body, digest_in(whole)) == (200, FILM, field(FILM))


async def test_digest_is_of_the_whole_file_whatever_part_is_sent(service: Service) -> None:
    await known_digest(service)
    part = await service.download("job-1", WANT, ("Range", "bytes=10-19"))
    assert (part.status, part.body, digest_in(part)) == (206, FILM[10:20], field(FILM))
    parts = await service.download("job-1", WANT, ("Range", "bytes=0-0,9000-9000"))
    assert (parts.status, digest_in(parts)) == (206, field(FILM))
    assert b"Repr-Digest" not in parts.body
    same = await service.download("job-1", WANT, ("If-None-Match", part.headers["ETag"]))
    assert (same.status, same.body, digest_in(same)) == (304, b"", field(FILM))


@pytest.mark.parametrize(
    ("condition", "expected"), [(("Range", "bytes=999999999-"), 416), (("If-Match", '"other"'), 412)]
)
async def test_response_without_content_has_no_digest_and_computes_none(
    service: Service, condition: tuple[str, str], expected: int
) -> None:
    assert (await service.download("job-1", WANT, condition)).status == expected
    assert await service.metric("jobsvc_digests_waiting") == 0
    assert await service.metric("jobsvc_digest_bytes_total") == 0
    await known_digest(service)
    answer = await service.download("job-1", WANT, condition)
    assert (answer.status, digest_in(answer)) == (expected, None)


@pytest.mark.parametrize(
    "wish", [None, "sha-256=0", "sha-512=10", "sha-256", "sha-256=11", "sha-256=1,", "SHA-256=1"]
)
async def test_digest_is_neither_sent_nor_computed_without_a_request(
    service: Service, wish: str | None
) -> None:
    fields = [] if wish is None else [("Want-Repr-Digest", wish)]
    assert digest_in(await head(service, *fields)) is None
    assert digest_in(await service.download("job-1", *fields)) is None
    assert await service.metric("jobsvc_digests_waiting") == 0
    assert await service.metric("jobsvc_digest_bytes_total") == 0
    await known_digest(service)
    assert digest_in(await service.download("job-1", *fields)) is None


async def test_download_by_link_has_the_digest(service: Service) -> None:
    await known_digest(service)
    followed = await service.ask("GET", await service.link("job-1"), [WANT], token=None)
    assert (followed.status, digest_in(followed)) == (200, field(FILM))


async def test_resuming_is_unaffected(service: Service) -> None:
    await known_digest(service)
    tag = (await head(service)).headers["ETag"]
    same = await service.download("job-1", WANT, ("Range", "bytes=5-"), ("If-Range", tag))
    assert (same.status, same.body, digest_in(same)) == (206, FILM[5:], field(FILM))
    other = await service.download("job-1", WANT, ("Range", "bytes=5-"), ("If-Range", '"other"'))
    assert (other.status, other.body, digest_in(other)) == (200, FILM, field(FILM))


async def test_job_has_the_digest_once_known_with_a_new_entity_tag(service: Service) -> None:
    before = await service.get("/api/jobs/job-1")
    assert "outputSha256" not in before.json()
    await known_digest(service)
    after = await service.get("/api/jobs/job-1", ("If-None-Match", before.headers["ETag"]))
    assert after.status == 200
    assert after.json() == before.json() | {"outputSha256": hashlib.sha256(FILM).hexdigest()}
    again = await service.get("/api/jobs/job-1", ("If-None-Match", after.headers["ETag"]))
    assert again.status == 304


async def test_long_poll_ends_when_the_digest_becomes_known(service: Service) -> None:
    before = await service.get("/api/jobs/job-1")
    async with service.connect() as link:
        waits = ("If-None-Match", before.headers["ETag"])
        link.send(request("GET", "/api/jobs/job-1?wait=12", [waits], token=service.token))
        await eventually_true(lambda: waiting(service))
        await head(service, WANT)
        received = await link.answer()
    assert (received.status, received.json()["outputSha256"]) == (200, hashlib.sha256(FILM).hexdigest())


async def waiting(service: Service) -> bool:
    return await service.metric("jobsvc_requests_waiting") == 1


async def test_list_has_no_digests(service: Service) -> None:
    await known_digest(service)
    page = await service.get("/api/jobs")
    assert [job["id"] for job in page.json()["jobs"]] == ["job-1"]
    assert b"outputSha256" not in page.body


@at_once
async def test_request_for_a_job_of_another_owner_is_404(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=FILM)
    ben = make_token("ben")
    service = await serve()
    answer = await service.ask("HEAD", DOWNLOAD, [WANT], token=ben)
    assert answer.status == 404
    assert await service.metric("jobsvc_digests_waiting") == 0
    assert await service.metric('jobsvc_digests_total{outcome="computed"}') == 0


async def test_unfinished_job_has_no_digest(service: Service, make_job: MakeJob) -> None:
    await known_digest(service)
    make_job(status="rendering", outputPath="output/film.mp4")
    assert (await head(service, WANT)).status == 409
    assert "outputSha256" not in await status(service, ("Cache-Control", "no-cache"))


async def test_digests_are_counted(service: Service, make_job: MakeJob) -> None:
    await known_digest(service)
    make_job("job-2", output=b"")
    await known_digest(service, b"", "job-2")
    assert await service.metric('jobsvc_digests_total{outcome="computed"}') == 2
    assert await service.metric("jobsvc_digest_bytes_total") == len(FILM)
    assert await service.metric("jobsvc_digests_known") == 2


def by_rename(path: Path, data: bytes) -> None:
    put(path, data)


def in_place(path: Path, data: bytes) -> None:
    """Overwrite an output in place, against the rule, and keep its size and its time."""
    times = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@at_once
@pytest.mark.parametrize("watch", ["events", "poll"])
@pytest.mark.parametrize("replace", [by_rename, in_place])
async def test_digest_of_a_replaced_output_is_never_sent(
    serve: Serve, make_job: MakeJob, watch: str, replace: Callable[[Path, bytes], None]
) -> None:
    """Downloads and forced reads immediately, others within --max-age; no watch reports writes in place."""
    film = make_job(output=FILM) / "output" / "film.mp4"
    service = await serve(watch=watch, max_age=0.3)
    await known_digest(service)
    old = hashlib.sha256(FILM).hexdigest()

    async def shows_old() -> bool:
        document: dict[str, Any] = await status(service)
        return document.get("outputSha256") == old

    await eventually_true(shows_old)
    await eventually_true(lambda: covered(service, watch))
    replace(film, OTHER)
    replaced = time.monotonic()
    assert digest_in(await head(service, WANT)) in {None, field(OTHER)}
    assert (await status(service, ("Cache-Control", "no-cache"))).get("outputSha256") != old
    while time.monotonic() - replaced < 1:
        requested_at = time.monotonic()
        assert not await shows_old() or requested_at - replaced < 0.3
    await known_digest(service, OTHER)
    assert (await status(service))["outputSha256"] == hashlib.sha256(OTHER).hexdigest()


async def covered(service: Service, watch: str) -> bool:
    """Wait until the watcher, if there is one, covers the job."""
    return watch == "poll" or await service.metric("jobsvc_watcher_healthy") == 1


@at_once
@pytest.mark.parametrize("replace", [by_rename, in_place])
async def test_old_digest_disappears_within_max_age_without_a_download(
    serve: Serve, make_job: MakeJob, replace: Callable[[Path, bytes], None]
) -> None:
    """Only status requests, while a watcher covers the job."""
    film = make_job(output=FILM) / "output" / "film.mp4"
    service = await serve(watch="events", max_age=0.3)
    await known_digest(service)
    await eventually_true(lambda: covered(service, "events"))
    await status(service)
    replace(film, OTHER)
    replaced = time.monotonic()

    async def gone() -> bool:
        requested_at = time.monotonic()
        has_it = "outputSha256" in await status(service)
        assert not has_it or requested_at - replaced < 0.35
        return not has_it

    await eventually_true(gone)


@at_once
async def test_digest_always_matches_the_bytes_of_its_entity_tag(serve: Serve, make_job: MakeJob) -> None:
    film = make_job(output=FILM) / "output" / "film.mp4"
    service = await serve()
    received: set[tuple[str, str]] = set()
    true: set[tuple[str, str]] = set()
    for number in range(40):
        data = b"%d" % number * 1000
        (by_rename if number % 3 else in_place)(film, data)
        for _ in range(number % 5 + 2):
            answer = await service.download("job-1", WANT)
            true.add((answer.headers["ETag"], field(answer.body)))
            if (found := digest_in(answer)) is not None:
                received.add((answer.headers["ETag"], found))
    assert received <= true
    await known_digest(service, film.read_bytes())
    # The index may be older than what a download read from disk.
    read = await status(service, ("Cache-Control", "no-cache"))
    assert read["outputSha256"] == hashlib.sha256(film.read_bytes()).hexdigest()


@at_once
async def test_hanging_read_delays_neither_states_nor_downloads_nor_shutdown(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(output=FILM)
    release, hanging = threading.Event(), threading.Event()

    def hang(*_: object) -> int:
        hanging.set()
        release.wait(20)
        return 0

    service = await serve()
    monkeypatch.setattr(os, "preadv", hang)
    try:
        assert (await head(service, WANT)).status == 200
        await until(hanging.is_set)
        monkeypatch.undo()
        for _ in range(10):
            assert "outputSha256" not in await status(service)
            assert (await service.download("job-1", WANT)).body == FILM
        assert await service.metric("jobsvc_digests_waiting") == 1
        # `serve` fails if the service does not end in time, and the read hangs until then.
    finally:
        threading.Timer(6, release.set).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_digest_survives_a_restart(
    start_process: StartProcess, make_job: MakeJob, number: signal.Signals
) -> None:
    """No request to the second service would compute it."""
    make_job(output=FILM)
    first = start_process("--limit-download", "1000000/minute")
    await known_digest(first)
    await until((first.state_dir / "digests.jsonl").exists)
    await eventually_true(lambda: saved(first))
    first.send_signal(number)
    await until(lambda: first.process.poll() is not None)
    second = start_process()
    assert (await status(second))["outputSha256"] == hashlib.sha256(FILM).hexdigest()
    assert digest_in(await head(second, WANT)) == field(FILM)
    assert await second.metric("jobsvc_digest_bytes_total") == 0


async def saved(service: Service) -> bool:
    return (service.state_dir / "digests.jsonl").read_bytes().endswith(b"\n")


@at_once
async def test_output_replaced_while_the_service_was_down_has_no_old_digest(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    film = make_job(output=FILM) / "output" / "film.mp4"
    await known_digest(await serve())
    await until((state_dir / "digests.jsonl").exists)
    put(film, OTHER)
    second = await serve()
    assert "outputSha256" not in await status(second)
    assert digest_in(await head(second, WANT)) is None
    await known_digest(second, OTHER)


API: Final = (Path(__file__).parents[1] / "docs/api.md").read_text("utf-8")


@needs("curl", "jq", "aria2c", "sha256sum")
@pytest.mark.parametrize("there", [FILM, FILM[:-1] + b"x"])
async def test_documented_recipe_detects_and_repairs_a_broken_file(
    service: Service, tmp_path: Path, there: bytes
) -> None:
    recipe = API.partition("## Checking a download")[2].partition("```sh\n")[2].partition("```")[0]
    recipe = recipe.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}").replace(
        "opening-title-0042", "job-1"
    )
    (tmp_path / "title.mp4").write_bytes(there)
    ended = await run("sh", "-u", "-c", f"JOBSVC_TOKEN={service.token}\n{recipe}", folder=tmp_path)
    assert f"title.mp4: {'OK' if there == FILM else 'FAILED'}\n" in ended.stdout.decode(), ended
    assert ended.exit_code == 0, ended
    assert (tmp_path / "title.mp4").read_bytes() == FILM
