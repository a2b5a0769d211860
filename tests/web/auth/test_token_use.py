"""Last use and expiry of tokens, as an operator sees them."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from urllib.parse import urljoin

import pytest

from jobsvc.storage.state.token_file import load
from jobsvc.storage.state.token_use_file import load_use, record_use
from jobsvc.web.auth import token_use
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import pause, until
from tests.programs.service_runner import Service

DAY = 86_400


def uses(service: Service) -> dict[str, float]:
    return load_use(service.state_dir / "token-use.json")


async def test_last_use_of_a_token_and_of_its_links_is_saved(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_use, "SAVE_INTERVAL_S", 0.02)
    make_job(output=b"film")
    make_token("bert")
    service = await serve()
    unused, used = load(service.state_dir / "tokens.json")
    before = time.time()
    assert (await service.get("/api/jobs/job-1")).status == 200
    await until(lambda: used.id in uses(service))
    first = uses(service)[used.id]
    assert before - 0.001 <= first <= time.time()
    made = json.loads((await service.ask("POST", "/api/jobs/job-1/download-links")).body)
    link = urljoin("/api/jobs/job-1/download-links", made["url"])
    await until(lambda: uses(service)[used.id] > first)
    second = uses(service)[used.id]
    assert (await service.get(link, token=None)).status == 200
    await until(lambda: uses(service)[used.id] > second)
    assert unused.id not in uses(service)


async def test_rejected_token_does_not_count_as_used(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_use, "SAVE_INTERVAL_S", 0.02)
    make_job()
    expired = make_token(expires=time.time() - 1)
    service = await serve()
    first, second = load(service.state_dir / "tokens.json")
    assert (await service.get("/api/jobs/job-1", token=expired)).status == 401
    assert (await service.get("/api/jobs/job-1")).status == 200
    await until(lambda: second.id in uses(service))
    assert first.id not in uses(service)


async def test_unsaved_uses_are_saved_at_shutdown(start_process: StartProcess, make_job: MakeJob) -> None:
    make_job()
    service = start_process()
    assert (await service.get("/api/jobs/job-1")).status == 200
    assert uses(service) == {}
    service.send_signal()
    await until(lambda: service.process.poll() is not None)
    assert set(uses(service)) == {load(service.state_dir / "tokens.json")[0].id}


def make_writes_fail(path: Path) -> None:
    """Make each write to the file fail: its lock file is a directory."""
    path.with_name(f".jobsvc-{path.name}.lock").mkdir()


async def test_failed_write_is_counted_and_retried(
    serve: Serve, make_job: MakeJob, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_use, "SAVE_INTERVAL_S", 0.02)
    make_job()
    make_writes_fail(state_dir / "token-use.json")
    service = await serve()
    assert (await service.get("/api/jobs/job-1")).status == 200
    while not await service.metric("jobsvc_token_use_errors_total"):
        await pause()
    (state_dir / ".jobsvc-token-use.json.lock").rmdir()
    await until(lambda: bool(uses(service)))


async def test_tokens_that_expire_within_14_days_are_counted(serve: Serve, make_token: MakeToken) -> None:
    now = time.time()
    for days in (-1, 1, 13.9, 14.1, 90):
        make_token(expires=now + days * DAY)
    service = await serve()
    assert await service.metric("jobsvc_tokens_expiring_soon") == 2


def test_uses_of_several_services_are_merged_and_removed_tokens_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "token-use.json"
    record_use(path, {"a": 100.0, "b": 200.0, "gone": 1.0}, {"a", "b", "gone"})
    record_use(path, {"a": 50.0, "b": 300.5}, {"a", "b"})
    assert load_use(path) == {"a": 100.0, "b": 300.5}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
