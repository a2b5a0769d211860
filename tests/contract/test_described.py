"""Every documented status and code of each operation can be provoked, and conforms to the document."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from tests.contract.description import DOCUMENT, EXAMPLES, FILE, OPERATIONS, assert_conforms
from tests.contract.service import (
    ANOTHERS,
    CANCELED,
    COMPLETED,
    EMPTY,
    FAILED,
    FRAMES,
    FRAMES_FILES,
    FRESH,
    JOBS_ONLY,
    LARGE,
    OUTPUTS_ONLY,
    QUEUED,
    RENDERING,
    SAMPLES,
    WITHOUT_OUTPUT,
    Service,
    until,
)


@dataclass(frozen=True)
class Scene:
    """A way to provoke one documented response; `where` names a fixture."""

    status: int
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    job: str = COMPLETED
    name: str = "opening-title.mp4"
    """The last segment of the path."""
    output: str = "main"
    query: str = ""
    method: str | None = None
    where: str = "service"
    token: int = 0
    before: int = 0
    """How many times the same request is sent first."""
    first: str | None = None
    """Its method, if it is another one."""
    anonymous: bool = False
    body: bytes | None = None


ANY: Final = {"If-None-Match": "*"}
OTHER: Final = {"If-Match": '"other"'}
BEYOND: Final = {"Range": "bytes=999999999-"}
BAD_HOST: Final = {"Host": "a/b"}
GZIP: Final = {"Content-Encoding": "gzip"}
TOO_LONG: Final = {"X-Long": "x" * 10_000}
FAR_TOO_LONG: Final = "?" + "x" * 10_000
MIRACLES: Final = {"Expect": "miracles"}

OPEN: Final = (
    Scene(200),
    Scene(400, "bad-request", BAD_HOST),
    Scene(405, "method-not-allowed", method="DELETE"),
    Scene(414, "uri-too-long", query=FAR_TOO_LONG),
    Scene(417, "bad-request", MIRACLES),
    Scene(431, "request-header-fields-too-large", TOO_LONG),
)
TAGGED: Final = (Scene(304, None, ANY), Scene(412, "precondition-failed", OTHER))
AWAY: Final = Scene(503, "storage-unavailable", job="unknown", where="unavailable")
NOBODY: Final = Scene(401, "unauthorized", anonymous=True)
LIMITED: Final = (
    AWAY,
    NOBODY,
    Scene(404, "job-not-found", job=ANOTHERS),
    Scene(404, "not-found", job="%7Bid%7D"),
)
GUARDED: Final = (*OPEN, *TAGGED, *LIMITED)
OUTSIDER: Final = Scene(403, "insufficient-scope", token=OUTPUTS_ONLY)
STATUS: Final = (*GUARDED, OUTSIDER)
LIST: Final = (
    *(*OPEN, *TAGGED, NOBODY, OUTSIDER),
    Scene(200, query="?limit=1&status=queued&status=failed&updatedSince=2026-11-21T00:00:00Z"),
    Scene(200, where="unavailable"),
    *(Scene(400, "bad-request", query=f"?{query}") for query in ("state=failed", "limit=0", "cursor=x")),
    Scene(503, "storage-unavailable", where="indexing"),
)
FILE_NEEDED: Final = (
    Scene(403, "insufficient-scope", token=JOBS_ONLY),
    Scene(404, "output-missing", job=WITHOUT_OUTPUT),
    Scene(409, "job-not-completed", job=RENDERING),
    Scene(409, "job-failed", job=FAILED),
    Scene(409, "job-canceled", job=CANCELED),
)
BYTES: Final = (
    *GUARDED,
    Scene(503, "storage-unavailable", where="unavailable"),
    Scene(412, "output-replaced", query=f"?version={'A' * 22}"),
    Scene(400, "bad-request", query="?x=1"),
)
PARTS: Final = (
    Scene(206, None, {"Range": "bytes=0-9"}),
    Scene(206, None, {"Range": "bytes=0-9,5000-5009"}),
    Scene(416, "range-not-satisfiable", BEYOND),
)
CROWDED: Final = Scene(409, "too-many-files", job=FRAMES, where="crowded")
OUTPUT: Final = (*BYTES, *FILE_NEEDED, CROWDED, Scene(404, "output-missing", job=EMPTY))
NAMED: Final = (
    *(*BYTES, *FILE_NEEDED),
    replace(CROWDED, name=f"{FRAMES}.tar"),
    Scene(404, "output-missing", job=EMPTY, name=f"{EMPTY}.tar"),
    Scene(404, "not-found", name="other.mp4"),
)
ONE_FILE: Final = (
    *BYTES,
    *(scene for scene in FILE_NEEDED if scene.code != "output-missing"),
    Scene(404, "file-missing", output="other"),
)
LISTED: Final = (
    *FILE_NEEDED,
    CROWDED,
    Scene(404, "file-missing", query="?output=other"),
    Scene(200, query="?output=beauty&output=preview", job=FRAMES),
)
FILES: Final = (
    *(*GUARDED, *LISTED),
    Scene(503, "storage-unavailable", where="unavailable"),
    Scene(200, query="?limit=1", job=FRAMES),
    *(Scene(400, "bad-request", query=f"?{query}") for query in ("x=1", "limit=0", "cursor=x")),
)
ARCHIVE: Final = (
    *(*BYTES, *LISTED),
    Scene(200, query="?frames=1001-1002", job=FRAMES),
    Scene(404, "file-missing", query="?frames=7", job=FRAMES),
    Scene(400, "bad-request", query="?frames=9-1"),
)
LINK: Final = (
    *LIMITED,
    *FILE_NEEDED,
    CROWDED,
    Scene(404, "file-missing", body=b'{"file": "other"}'),
    Scene(201, body=b'{"file": "main/opening-title.mp4", "inline": true}'),
    Scene(201, body=b'{"archive": "tar"}'),
    Scene(201, job=FRAMES),
    Scene(201),
    Scene(201, body=b'{"expiresIn": 60}'),
    Scene(400, "bad-request", BAD_HOST),
    Scene(400, "bad-request", body=b"{"),
    Scene(405, "method-not-allowed", method="DELETE"),
    Scene(413, "content-too-large", body=b" " * 65_537),
    Scene(414, "uri-too-long", query=FAR_TOO_LONG),
    Scene(415, "unsupported-media-type", GZIP, body=b"{}"),
    Scene(431, "request-header-fields-too-large", TOO_LONG),
    Scene(417, "bad-request", MIRACLES),
)


def spent(token: int) -> Scene:
    return Scene(429, "rate-limited", where="strict", token=token, before=2)


LOGS: Final = (
    *STATUS,
    Scene(200, query="?follow=1", job=FAILED),
    Scene(200, query="?tail=2"),
    Scene(400, "bad-request", query="?tail=x"),
    Scene(404, "log-missing", job=QUEUED),
    Scene(503, "storage-unavailable", where="unavailable"),
)

WAITED: Final = (*STATUS, Scene(200, query="?wait=0"), Scene(400, "bad-request", query="?wait=61"))
JOB_EVENTS: Final = (*OPEN, *LIMITED, OUTSIDER)
EVENTS: Final = (*OPEN[1:], NOBODY, OUTSIDER, Scene(400, "bad-request", query="?state=failed"))
"""Except a 200 to a GET, which never ends."""

TOKEN: Final = (
    *(*OPEN, NOBODY),
    Scene(200, token=OUTPUTS_ONLY),
    Scene(400, "bad-request", query="?verbose=1"),
)

PAGE: Final = {"Sec-Fetch-Site": "same-origin"}
ELSEWHERE: Final = {"Sec-Fetch-Site": "cross-site"}
END_SESSION: Final = (
    Scene(204, headers=PAGE),
    Scene(400, "bad-request", PAGE, query="?all=1"),
    Scene(403, "cross-origin-request", ELSEWHERE),
    Scene(405, "method-not-allowed", method="PUT"),
    *(scene for scene in OPEN if scene.status in {400, 414, 417, 431}),
)
START_SESSION: Final = (*END_SESSION, replace(NOBODY, headers=PAGE))

SCENES: Final[Mapping[str, tuple[Scene, ...]]] = {
    "listJobs": (*LIST, spent(FRESH + 5)),
    "headJobs": (*LIST, spent(FRESH + 6)),
    "getJob": (*WAITED, spent(FRESH)),
    "headJob": (*WAITED, spent(FRESH + 1)),
    "getJobEvents": (*JOB_EVENTS, spent(FRESH + 2)),
    "headJobEvents": (*JOB_EVENTS, spent(FRESH + 3)),
    "getEvents": (*EVENTS, replace(spent(FRESH + 4), first="HEAD")),
    "headEvents": (*EVENTS, Scene(200), spent(FRESH + 5)),
    "downloadOutput": (*OUTPUT, *PARTS, Scene(200, job=FRAMES), spent(FRESH + 2)),
    "headOutput": (*OUTPUT, Scene(200, job=FRAMES), spent(FRESH + 3)),
    "downloadNamedOutput": (*NAMED, *PARTS, spent(FRESH)),
    "headNamedOutput": (*NAMED, spent(FRESH + 1)),
    "listFiles": (*FILES, spent(FRESH)),
    "headFiles": (*FILES, spent(FRESH + 1)),
    "downloadOutputFile": (*ONE_FILE, *PARTS, spent(FRESH + 2)),
    "headOutputFile": (*ONE_FILE, spent(FRESH + 3)),
    "downloadFile": (*ONE_FILE, *PARTS, spent(FRESH + 4)),
    "headFile": (*ONE_FILE, spent(FRESH + 5)),
    "downloadTar": (*ARCHIVE, *PARTS, spent(FRESH + 5)),
    "headTar": (*ARCHIVE, spent(FRESH + 6)),
    "downloadZip": (*ARCHIVE, spent(FRESH + 7)),
    "headZip": (*ARCHIVE, spent(FRESH + 8)),
    "getLogs": (
        *(*LOGS, spent(FRESH + 5)),
        Scene(206, None, {"Range": "bytes=0-9"}),
        Scene(206, None, {"Range": "bytes=0-9,500-509"}),
        Scene(416, "range-not-satisfiable", BEYOND),
    ),
    "headLogs": (*LOGS, spent(FRESH + 6)),
    "createDownloadLink": (*LINK, spent(FRESH + 4)),
    "getToken": TOKEN,
    "headToken": TOKEN,
    "startSession": START_SESSION,
    "endSession": END_SESSION,
    "getDescription": (*OPEN, *TAGGED),
    "headDescription": (*OPEN, *TAGGED),
    "getHealth": OPEN,
    "headHealth": OPEN,
    "getReadiness": (*OPEN, AWAY),
    "headReadiness": (*OPEN, AWAY),
    "getMetrics": OPEN,
    "headMetrics": OPEN,
}


def scenes() -> Iterator[Any]:
    for name, some in SCENES.items():
        for number, scene in enumerate(some):
            yield pytest.param(name, scene, id=f"{name}-{scene.status}-{scene.code}-{number}")


@pytest.mark.parametrize(("name", "scene"), list(scenes()))
def test_each_documented_response_is_provoked(
    name: str, scene: Scene, request: pytest.FixtureRequest
) -> None:
    where: Service = request.getfixturevalue(scene.where)
    method = scene.method or OPERATIONS[name].method.upper()
    path = OPERATIONS[name].path.replace("{id}", scene.job).replace("{output}", scene.output)
    target = path.replace("{name}", scene.name).replace("{path}", scene.name) + scene.query

    def ask(method: str) -> requests.Response:
        token = where.tokens[scene.token]
        return where.ask(method, target, scene.headers, token, anonymous=scene.anonymous, body=scene.body)

    for _ in range(scene.before):
        assert ask(scene.first or method).ok
    response = ask(method)
    assert_conforms(name, response, server_error=scene.status >= 500)
    assert response.status_code == scene.status
    assert bool(response.content) == (method != "HEAD" and scene.status not in {204, 304})
    if response.content and scene.code is not None:
        assert response.json()["code"] == scene.code


def test_every_documented_response_but_internal_errors_has_a_scene() -> None:
    provoked = {(name, scene.status, scene.code) for name, some in SCENES.items() for scene in some}
    provoked |= {(name, 429, "too-many-downloads") for name in DOWNLOADS}
    provoked.add(("getEvents", 200, None))
    provoked |= {("downloadZip", 206, None), ("downloadZip", 416, "range-not-satisfiable")}
    provoked.add(("getLogs", 429, "too-many-downloads"))  # by tests/web/ratelimit/test_download_slots.py
    provoked |= {(name, 429, "too-many-streams") for name in STREAMS}
    provoked |= {(name, 429, "rate-limited") for name in ("getToken", "headToken", "startSession")}
    provoked |= {(name, 204, None) for name in (*ENDING, *map(head_of, ENDING))}  # the same
    faults = {(name, 500, "internal") for name in OPERATIONS}
    # tests/web/connection/test_connection_limits.py provokes these.
    faults |= {("createDownloadLink", 408, "request-timeout")}
    faults |= {
        (name, 503, "too-many-connections")
        for name, operation in OPERATIONS.items()
        if "503" in operation.definition.raw["responses"]
    }
    assert provoked | faults == {
        (name, status, code)
        for name, operation in OPERATIONS.items()
        for status, codes in described_codes(operation.definition.raw)
        for code in codes
    }


def described_codes(operation: dict[str, Any]) -> Iterator[tuple[int, list[str | None]]]:
    """Yield each status of an operation with its codes; None for a response that is not a problem.

    A response to HEAD has no content: its codes are those of the response to GET.
    """
    for status, reference in operation["responses"].items():
        name = reference["$ref"].rpartition("/")[2].removesuffix("Head")
        answer = DOCUMENT["components"]["responses"][name]
        problem = answer.get("content", {}).get("application/problem+json")
        yield int(status), problem["schema"]["properties"]["code"]["enum"] if problem else [None]


DOWNLOADS: Final[Mapping[str, str]] = {
    "downloadOutput": "download",
    "downloadNamedOutput": "download/film.mov",
    "downloadOutputFile": "files/main",
    "downloadFile": "files/main/film.mov",
    "downloadTar": "archive.tar",
    "downloadZip": "archive.zip",
}
"""Operations that count as concurrent downloads, and where they are below a job."""


@pytest.mark.parametrize("name", DOWNLOADS)
def test_download_above_the_limit_is_answered_as_documented(strict: Service, name: str) -> None:
    secret = strict.tokens[-1 - list(DOWNLOADS).index(name)]
    path = f"/api/jobs/{LARGE}/{DOWNLOADS[name]}"
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n"
    address = urlsplit(strict.url)
    with socket.create_connection((address.hostname, address.port), 20) as stalled:
        stalled.sendall(head.encode())
        assert stalled.recv(12) == b"HTTP/1.1 200"
        response = strict.ask("GET", path, token=secret)
    assert_conforms(name, response)
    assert (response.status_code, response.json()["code"]) == (429, "too-many-downloads")


@pytest.mark.parametrize("scene", PARTS, ids=lambda scene: str(scene.headers["Range"]))
def test_part_of_a_zip_archive_is_answered_as_documented(service: Service, scene: Scene) -> None:
    target = f"/api/jobs/{COMPLETED}/archive.zip"
    until(lambda: service.ask("GET", target).headers["Accept-Ranges"] == "bytes")
    response = service.ask("GET", target, scene.headers)
    assert_conforms("downloadZip", response)
    assert response.status_code == scene.status


STREAMS: Final[Mapping[str, str]] = {
    "getJob": "?wait=1",
    "headJob": "?wait=1",
    "getJobEvents": "",
    "headJobEvents": "",
    "getEvents": "",
    "headEvents": "",
    "getLogs": "?follow=1",
    "headLogs": "?follow=1",
}


@pytest.mark.parametrize("name", STREAMS)
def test_stream_above_the_limit_is_answered_as_documented(narrow: Service, name: str) -> None:
    operation = OPERATIONS[name]
    target = operation.path.replace("{id}", RENDERING) + STREAMS[name]
    with narrow.stream(f"/api/jobs/{RENDERING}/events"):
        response = narrow.ask(operation.method.upper(), target)
    assert_conforms(name, response)
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "5"


ENDING: Final = ("getJobEvents", "getLogs")


def head_of(name: str) -> str:
    return f"head{name.removeprefix('get')}"


@pytest.mark.parametrize("name", ENDING)
def test_resuming_a_finished_stream_is_answered_as_documented(service: Service, name: str) -> None:
    target = OPERATIONS[name].path.replace("{id}", FAILED) + ("?follow=1" if name == "getLogs" else "")
    received = service.ask("GET", target)
    assert_conforms(name, received)
    last = re.findall("^id: (.*)$", received.text, re.MULTILINE)[-1]
    for one, method in ((name, "GET"), (head_of(name), "HEAD")):
        again = service.ask(method, target, {"Last-Event-ID": last})
        assert_conforms(one, again)
        assert (again.status_code, again.content) == (204, b"")


def test_stream_of_all_jobs_starts_as_documented(service: Service) -> None:
    with service.begin("/api/events") as response:
        assert response.status_code == 200
        received = b""
        for data in response.iter_content(None):
            received += data
            if b"event: present\n" in received:
                break
        response._content = received
        assert_conforms("getEvents", response)
    states = [json.loads(line[6:])["id"] for line in received.splitlines() if line.startswith(b'data: {"id"')]
    assert {COMPLETED, FAILED, QUEUED, RENDERING} <= set(states)
    assert ANOTHERS not in states


def test_wrong_token_above_the_limit_is_answered_as_documented(strict: Service) -> None:
    wrong = [strict.ask("GET", f"/api/jobs/{COMPLETED}", token="jsvc_" + "x" * 43) for _ in range(2)]
    for response in wrong:
        assert_conforms("getJob", response)
    assert [response.status_code for response in wrong] == [401, 429]
    for name in ("getToken", "headToken"):
        method = OPERATIONS[name].method.upper()
        response = strict.ask(method, "/api/me", token="jsvc_" + "x" * 43)
        assert_conforms(name, response)
        assert response.status_code == 429
    response = strict.ask("POST", "/ui/session", PAGE, token="jsvc_" + "x" * 43)
    assert_conforms("startSession", response)
    assert response.status_code == 429
    assert wrong[1].json()["code"] == "rate-limited"


def test_last_known_state_is_served_while_storage_is_unavailable(unavailable: Service) -> None:
    response = until(lambda: _stale(unavailable.ask("GET", f"/api/jobs/{RENDERING}")))
    assert_conforms("getJob", response)
    assert (response.status_code, response.json()) == (200, EXAMPLES["JobRendering"]["value"])


def test_last_known_list_is_served_while_storage_is_unavailable(unavailable: Service) -> None:
    response = until(lambda: _stale(unavailable.ask("GET", "/api/jobs?limit=200")))
    assert_conforms("listJobs", response)
    assert EXAMPLES["JobRendering"]["value"] in response.json()["jobs"]


def test_example_of_a_page_is_what_the_service_answers(service: Service) -> None:
    """Except for the broken samples in it, whose position follows from their file times."""
    shown, last = EXAMPLES["Page"]["value"], EXAMPLES["LastPage"]["value"]
    link_target = EXAMPLES["Page"]["summary"].split("`")[1].replace("&limit=1", "&limit=200")
    every = service.ask("GET", f"/api/jobs{link_target}")
    assert_conforms("listJobs", every)
    jobs = every.json()["jobs"]
    assert jobs.index(shown["jobs"][0]) < jobs.index(last["jobs"][0])
    rest = service.ask("GET", f"/api/jobs{link_target}&cursor={shown['nextCursor']}").json()["jobs"]
    assert rest == jobs[jobs.index(shown["jobs"][0]) + 1 :]


def test_listed_job_equals_its_status_except_log_digest_and_outputs(service: Service) -> None:
    until(lambda: "Repr-Digest" in request_digest(service, "HEAD", COMPLETED).headers)
    listed = service.ask("GET", "/api/jobs?limit=200").json()["jobs"]
    assert {COMPLETED, FAILED, RENDERING, CANCELED} <= {job["id"] for job in listed}
    left_out = set()
    for job in listed:
        alone = service.ask("GET", f"/api/jobs/{job['id']}").json()
        left_out |= alone.keys() - job.keys()
        assert job == {name: value for name, value in alone.items() if name in job}
    assert left_out == {"logs", "outputSha256", "outputs"}


def test_incomplete_list_is_refused_as_in_the_example(indexing: Service) -> None:
    answered = indexing.ask("GET", "/api/jobs").json()
    assert answered | {"requestId": ""} == EXAMPLES["storage-unavailable-list"]["value"] | {"requestId": ""}
    assert indexing.ask("GET", f"/api/jobs/{COMPLETED}").ok
    unready = indexing.ask("GET", "/readyz")
    assert_conforms("getReadiness", unready, server_error=True)
    assert unready.json()["detail"] == "The first index of the jobs is not complete."


def _stale(response: requests.Response) -> requests.Response | None:
    return response if "Cache-Status" in response.headers else None


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith("Job")])
def test_example_of_a_job_is_what_the_service_answers(service: Service, name: str) -> None:
    shown = dict(EXAMPLES[name]["value"])
    if "outputSha256" in shown:
        until(lambda: "Repr-Digest" in request_digest(service, "HEAD", shown["id"]).headers)
    answered = service.ask("GET", f"/api/jobs/{shown['id']}").json()
    assert answered.pop("logs", "").endswith(shown.pop("logs", ""))
    version = answered.get("downloadUrl", "").rpartition("=")[2]  # of a copy with its own times
    if version:
        former = shown["downloadUrl"].rpartition("=")[2]
        shown = json.loads(json.dumps(shown).replace(former, version))
    assert answered == shown


def request_digest(service: Service, method: str, job: str, **fields: str) -> requests.Response:
    """Request a download and its digest."""
    return service.ask(method, f"/api/jobs/{job}/download", {"Want-Repr-Digest": "sha-256=1", **fields})


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("headOutput", {}, 200),
        ("downloadOutput", {}, 200),
        ("downloadOutput", {"Range": "bytes=0-9"}, 206),
        ("downloadOutput", {"If-None-Match": "*"}, 304),
    ],
)
def test_example_of_a_digest_is_what_the_service_answers(
    service: Service, name: str, fields: dict[str, str], status: int
) -> None:
    until(lambda: "Repr-Digest" in request_digest(service, "HEAD", COMPLETED).headers)
    response = request_digest(service, OPERATIONS[name].method.upper(), COMPLETED, **fields)
    assert_conforms(name, response)
    assert response.status_code == status
    assert response.headers["Repr-Digest"] == DOCUMENT["components"]["headers"]["ReprDigest"]["example"]


@pytest.mark.parametrize(
    ("code", "target", "headers"),
    [
        ("bad-request-body", f"/api/jobs/{COMPLETED}/download-links", {}),
        ("content-too-large", f"/api/jobs/{COMPLETED}/download-links", {}),
        ("bad-request", "/healthz", BAD_HOST),
        ("request-header-fields-too-large", "/healthz", TOO_LONG),
        ("unsupported-media-type", f"/api/jobs/{COMPLETED}/download-links", GZIP),
        ("bad-request-query", f"/api/jobs/{COMPLETED}/logs?tail=x", {}),
        ("uri-too-long", f"/healthz{FAR_TOO_LONG}", {}),
        ("bad-request-expect", "/healthz", MIRACLES),
        ("bad-request-parameter", "/api/jobs?status=paused", {}),
        ("unauthorized", f"/api/jobs/{COMPLETED}", {}),
        ("insufficient-scope", f"/api/jobs/{COMPLETED}/download", {}),
        ("cross-origin-request", "/ui/session", ELSEWHERE),
        ("not-found", "/api", {}),
        ("job-not-found", "/api/jobs/unknown", {}),
        ("log-missing", f"/api/jobs/{QUEUED}/logs", {}),
        ("output-missing", f"/api/jobs/{WITHOUT_OUTPUT}/download", {}),
        ("file-missing", f"/api/jobs/{COMPLETED}/files/other", {}),
        ("method-not-allowed", "/healthz", {}),
        ("job-not-completed", f"/api/jobs/{RENDERING}/download", {}),
        ("job-failed", f"/api/jobs/{FAILED}/download", {}),
        ("job-canceled", f"/api/jobs/{CANCELED}/download", {}),
        ("precondition-failed", f"/api/jobs/{COMPLETED}/download", OTHER),
        ("output-replaced", f"/api/jobs/{COMPLETED}/download?version={'A' * 22}", {}),
        ("range-not-satisfiable", f"/api/jobs/{COMPLETED}/download", BEYOND),
    ],
)
def test_example_of_a_problem_is_what_the_service_answers(
    service: Service, code: str, target: str, headers: dict[str, str]
) -> None:
    bodies = {"bad-request-body": b'{"expires": 60}', "content-too-large": b" " * 65_537}
    body = (bodies | {"unsupported-media-type": b"{}"}).get(code)
    method = "POST" if body or code in {"method-not-allowed", "cross-origin-request"} else "GET"
    token = service.tokens[JOBS_ONLY] if code == "insufficient-scope" else None
    anonymous = code == "unauthorized"
    answered = service.ask(method, target, headers, token, anonymous=anonymous, body=body).json()
    assert answered | {"requestId": ""} == EXAMPLES[code]["value"] | {"requestId": ""}


@pytest.mark.parametrize("headers", [{}, ANY, OTHER, {"Range": "bytes=0-9"}, BEYOND], ids=str)
@pytest.mark.parametrize("target", [COMPLETED, f"{COMPLETED}/download", "unknown", f"{FAILED}/download"])
def test_each_response_to_a_counted_request_reports_the_budget(
    service: Service, target: str, headers: dict[str, str]
) -> None:
    for token in service.tokens[:FRESH]:
        answered = service.ask("GET", f"/api/jobs/{target}", headers, token).headers
        assert {"RateLimit", "RateLimit-Policy"} <= answered.keys()


def test_link_opens_only_its_download_without_a_header(service: Service) -> None:
    made = service.ask("POST", f"/api/jobs/{COMPLETED}/download-links").json()
    whole = (SAMPLES / COMPLETED / "output/opening-title.mp4").read_bytes()
    target = urljoin(f"/api/jobs/{COMPLETED}/download-links", made["url"])
    for name, method in (("downloadNamedOutput", "GET"), ("headNamedOutput", "HEAD")):
        response = service.ask(method, target, anonymous=True)
        assert_conforms(name, response)
        assert (response.status_code, response.content) == (200, whole if method == "GET" else b"")
        wrong = service.ask(method, target + "x", anonymous=True)
        assert_conforms(name, wrong)
        assert wrong.status_code == 401


def test_too_many_files_are_refused_as_in_the_example(crowded: Service) -> None:
    shown = json.dumps(EXAMPLES["too-many-files"]["value"]).replace("100000", "1")
    answered = crowded.ask("GET", f"/api/jobs/{FRAMES}/files").json()
    assert answered | {"requestId": ""} == json.loads(shown) | {"requestId": ""}


@pytest.mark.parametrize(
    ("name", "target"),
    [("FilesOfOneOutput", f"{COMPLETED}/files"), ("FilesOfSeveralOutputs", f"{FRAMES}/files?limit=3")],
)
def test_example_of_a_list_of_files_is_what_the_service_answers(
    service: Service, name: str, target: str
) -> None:
    """Except for times and versions: those of the copy are its own."""
    shown, answered = deepcopy(EXAMPLES[name]["value"]), service.ask("GET", f"/api/jobs/{target}").json()
    for file in [*shown["files"], *answered["files"]]:
        file["modifiedAt"] = re.sub("[0-9]", "0", file["modifiedAt"])
        version = file["etag"].strip('"')
        assert file["downloadUrl"].endswith(f"?version={version}")
        file["etag"], file["downloadUrl"] = "", file["downloadUrl"].removesuffix(version)
        file.pop("sha256", None)  # another test may have requested it
    assert answered == shown


def test_each_listed_file_is_where_its_url_says(service: Service) -> None:
    files = service.ask("GET", f"/api/jobs/{FRAMES}/files").json()["files"]
    assert len(files) == len(FRAMES_FILES)
    for file in files:
        response = service.ask("GET", file["downloadUrl"])
        assert_conforms("downloadFile", response)
        assert (len(response.content), response.headers["ETag"]) == (file["size"], file["etag"])


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"file": "textures/wood/oak 1.png", "inline": True}, "downloadFile"),
        ({"file": "preview"}, "downloadFile"),
        ({"archive": "tar"}, "downloadTar"),
        ({"archive": "zip"}, "downloadZip"),
        ({}, "downloadNamedOutput"),
    ],
)
def test_link_of_each_kind_is_answered_as_documented(
    service: Service, body: dict[str, Any], name: str
) -> None:
    base = f"/api/jobs/{FRAMES}/download-links"
    made = service.ask("POST", base, body=json.dumps(body).encode())
    assert_conforms("createDownloadLink", made)
    for operation, method in ((name, "GET"), (name.replace("download", "head"), "HEAD")):
        response = service.ask(method, urljoin(base, made.json()["url"]), anonymous=True)
        assert_conforms(operation, response)
        assert response.status_code == 200


def test_openapi_document_is_served_to_anyone(service: Service) -> None:
    assert service.ask("GET", "/api/openapi.json", anonymous=True).content == FILE.read_bytes()


def test_documented_way_to_resume_gives_the_whole_file(service: Service) -> None:
    link_target = f"/api/jobs/{COMPLETED}"
    target = urljoin(link_target, service.ask("GET", link_target).json()["downloadUrl"])
    whole = (SAMPLES / COMPLETED / "output/opening-title.mp4").read_bytes()
    first_response = service.ask("GET", target)
    kept = first_response.content[:70_000]

    condition = {"If-Range": first_response.headers["ETag"]}
    rest = service.ask("GET", target, condition | {"Range": f"bytes={len(kept)}-"})
    assert (rest.status_code, kept + rest.content) == (206, whole)
    full = service.ask("GET", target, condition | {"Range": f"bytes={len(whole)}-"})
    assert (full.status_code, full.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    changed = service.ask("GET", target, {"If-Range": '"other"', "Range": f"bytes={len(kept)}-"})
    assert (changed.status_code, changed.content) == (200, whole)


@pytest.mark.parametrize(("method", "target"), [("GET", "/nothing"), ("POST", "/healthz")])
def test_unknown_expectation_on_an_unknown_url_is_a_problem_document(
    service: Service, method: str, target: str
) -> None:
    response = service.ask(method, target, MIRACLES)
    assert_conforms("getHealth", response)
    assert response.json()["code"] == "bad-request"
    assert response.headers["Server"] == "jobsvc"
