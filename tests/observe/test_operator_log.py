"""What the log tells operators: why requests were refused, why storage is unavailable, what is served."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson
import pytest

from jobsvc.domain.access import JOBS_READ
from jobsvc.storage.state.token_file import load, revoke
from tests.clients.raw_http import Answer
from tests.conftest import MakeJob, MakeToken, StartProcess
from tests.eventually import pause, until, wait_until
from tests.exchange import exchange
from tests.programs.service_runner import Process, start_command, stop_process

JOB = "/api/jobs/job-1"
WRONG = "jsvc_wrong"


def take_away(root: Path, how: str) -> None:
    """Rename the jobs root, or exchange it with a file in one step, so that it is never missing."""
    unmounted = root.with_name("unmounted")
    if how == "gone":
        root.rename(unmounted)
        return
    unmounted.touch()
    exchange(root, unmounted)


async def refused(service: Process, answer: Answer) -> dict[str, Any]:
    """Return the log line of a refused request."""
    name = answer.headers["X-Request-Id"]
    await until(lambda: any(line["requestId"] == name for line in service.lines("refused")))
    return next(line for line in service.lines("refused") if line["requestId"] == name)


async def test_log_has_the_reason_of_a_refused_token_and_its_id_if_known(
    start_process: StartProcess, make_job: MakeJob, make_token: MakeToken, state_dir: Path
) -> None:
    make_job(output=b"film")
    secrets = {
        "expired": make_token(expires=time.time() - 1),
        "revoked": make_token(),
        "scope": make_token("anna", [JOBS_READ]),
    }
    ids = dict(zip(secrets, (token.id for token in load(state_dir / "tokens.json")), strict=True))
    revoke(state_dir / "tokens.json", ids["revoked"])
    service = start_process()
    cases: list[tuple[str, str | None, str | None]] = [
        *((reason, secrets[reason], ids[reason]) for reason in secrets),
        ("unknown", "jsvc_" + "A" * 43, None),
        ("malformed", "no token at all", None),
        ("missing", None, None),
    ]
    for reason, secret, known in cases:
        answer = await service.get(f"{JOB}/download", token=secret)
        assert answer.status == (403 if reason == "scope" else 401)
        line = await refused(service, answer)
        assert (line["reason"], line.get("tokenId")) == (reason, known)
        assert line["code"] == ("insufficient-scope" if reason == "scope" else "unauthorized")
    text = service.stderr_file.read_text()
    for secret in secrets.values():
        assert secret.removeprefix("jsvc_") not in text
    assert "A" * 43 not in text


async def test_log_has_the_reason_of_a_refused_link(
    start_process: StartProcess, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=b"film")
    service = start_process()
    (token,) = load(state_dir / "tokens.json")
    made = await service.ask("POST", f"{JOB}/download-links")
    link = urljoin(f"{JOB}/download-links", orjson.loads(made.body)["url"])
    changed = link[:-1] + ("A" if link[-1] != "A" else "B")
    for target, reason in ((changed, "link-signature"), (f"{JOB}/download?token=x", "link-malformed")):
        line = await refused(service, await service.get(target, token=None))
        assert (line["reason"], line.get("tokenId")) == (reason, None)
    revoke(state_dir / "tokens.json", token.id)
    answer = await service.get(link, token=None)
    while answer.status != 401:
        await pause()
        answer = await service.get(link, token=None)
    line = await refused(service, answer)
    assert (line["reason"], line["tokenId"]) == ("revoked", token.id)
    assert link.rpartition("=")[2] not in service.stderr_file.read_text()


async def test_token_that_fails_too_often_is_still_named(
    start_process: StartProcess, make_job: MakeJob, make_token: MakeToken, state_dir: Path
) -> None:
    make_job()
    expired = make_token(expires=time.time() - 1)
    token = load(state_dir / "tokens.json")[-1].id
    service = start_process("--limit-auth-failures", "1/hour")
    assert (await service.get(JOB, token=expired)).status == 401
    answer = await service.get(JOB, token=expired)
    assert answer.status == 429
    line = await refused(service, answer)
    assert (line["code"], line["reason"], line["tokenId"]) == ("rate-limited", "expired", token)


async def test_refusal_after_authentication_names_the_token(
    start_process: StartProcess, make_job: MakeJob, state_dir: Path
) -> None:
    make_job()
    service = start_process()
    (token,) = load(state_dir / "tokens.json")
    line = await refused(service, await service.get("/api/jobs/unknown"))
    assert (line["code"], line["tokenId"]) == ("job-not-found", token.id)
    assert "reason" not in line


async def test_log_names_the_state_directory_and_the_number_of_tokens(
    start_process: StartProcess, make_token: MakeToken, state_dir: Path
) -> None:
    make_token(expires=time.time() - 1)
    service = start_process()
    await until(lambda: service.lines("tokens"))
    assert service.lines("serving")[0]["state_dir"] == str(state_dir)
    (line,) = service.lines("tokens")
    assert (line["file"], line["live"], line["ended"]) == (str(state_dir / "tokens.json"), 1, 1)
    assert service.lines("no-live-token") == []


async def test_no_live_token_is_a_warning_with_a_remedy(start_process: StartProcess, state_dir: Path) -> None:
    service = start_process()
    (state_dir / "tokens.json").unlink()
    await until(lambda: service.lines("no-live-token"))
    (line,) = service.lines("no-live-token")
    assert line["level"] == "warning"
    assert line["remedy"] == f"jobsvc token create --owner OWNER --state-dir {state_dir}"


def test_misspelled_variable_is_a_warning_with_a_suggestion(
    tmp_path: Path, jobs_root: Path, state_dir: Path
) -> None:
    stderr_file = tmp_path / "said"
    words = ("serve", jobs_root, "--state-dir", state_dir, "--port", "0", "--host", "a..b")
    process = start_command(
        stderr_file, *words, JOBSVC_MAX_AG="1", JOBSVC_URL="x", JOBSVC_SERVICE_HOST="10.0.0.1"
    )
    assert process.wait(20) == 2
    lines = [orjson.loads(line) for line in stderr_file.read_bytes().splitlines()]
    warnings = [line for line in lines if line["event"] == "unknown-variable"]
    assert [(line["level"], line["name"], line["did_you_mean"]) for line in warnings] == [
        ("warning", "JOBSVC_MAX_AG", "JOBSVC_MAX_AGE")
    ]


def test_log_is_utf_8_in_any_locale(tmp_path: Path, state_dir: Path) -> None:
    root = tmp_path / "夜"
    root.mkdir()
    stderr_file = tmp_path / "said"
    words = ("serve", root, "--state-dir", state_dir, "--port", "0")
    process = start_command(stderr_file, *words, PYTHONIOENCODING="ascii")
    try:
        wait_until(lambda: b'"serving"' in stderr_file.read_bytes(), 20)
    finally:
        stop_process(process)
    serving = [orjson.loads(line) for line in stderr_file.read_bytes().splitlines() if b'"serving"' in line]
    assert serving[0]["jobs_root"] == str(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs as root")
def test_running_as_root_is_a_warning(start_process: StartProcess) -> None:
    service = start_process()
    wait_until(lambda: bool(service.lines("running-as-root")))
    assert service.lines("running-as-root")[0]["level"] == "warning"


@pytest.mark.parametrize("how", ["gone", "a file"])
async def test_log_and_readiness_name_the_storage_error(
    start_process: StartProcess, make_job: MakeJob, jobs_root: Path, how: str
) -> None:
    make_job()
    service = start_process()
    take_away(jobs_root, how)
    await until(lambda: service.lines("storage-missing") and service.lines("storage-fault"))
    name = errno.errorcode[errno.ENOENT if how == "gone" else errno.ENOTDIR]
    assert service.lines("storage-missing")[0]["reason"].startswith(f"{name} (")
    assert service.lines("storage-fault")[0]["reason"].startswith(f"{name} (")
    assert f"The storage is unavailable: {name} (" in (await service.get("/readyz", token=None)).body.decode()


async def test_many_refusals_are_counted_and_few_logged(start_process: StartProcess) -> None:
    service = start_process("--limit-auth-failures", "1000000/second")
    for _ in range(300):
        assert (await service.get("/api/jobs", token=WRONG)).status == 401
        async with service.connect() as link:
            link.send(b"no HTTP\r\n\r\n")
            assert (await link.answer()).status == 400
    await until(lambda: service.lines("log-lines-omitted"))
    wrong = 'jobsvc_requests_total{code="401",method="GET",route="/api/jobs"}'
    assert await service.metric(wrong) == 300
    unparsed = 'jobsvc_requests_total{code="400",method="other",route="unparsed"}'
    assert await service.metric(unparsed) == 300

    def logged_count() -> int:
        omitted = sum(int(line["lines"]) for line in service.lines("log-lines-omitted"))
        return omitted + len(service.lines("refused"))

    await until(lambda: logged_count() == 600)
    assert len(service.lines("refused")) < 300
