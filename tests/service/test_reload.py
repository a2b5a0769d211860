from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobsvc.domain.access import Token
from jobsvc.service.limits import CHANGEABLE
from jobsvc.service.supervision.reload import Reloader
from jobsvc.service.supervision.service_manager import ServiceManager
from jobsvc.settings import ConfiguredValue, Settings, loader
from jobsvc.web.ratelimit.download_slots import DownloadSlots
from tests.conftest import MakeJob, StartProcess
from tests.eventually import until

Lines = list[dict[str, Any]]


async def refresh_no_tokens() -> None:
    pass


@pytest.fixture
def config(tmp_path: Path, jobs_root: Path) -> Path:
    file = tmp_path / "jobsvc.toml"
    file.write_text(f"jobs-root = {str(jobs_root)!r}\nlimit-list = '7/minute'\n")
    return file


def add(config: Path, text: str) -> None:
    config.write_text(config.read_text() + text)


async def reload_after(config: Path, text: str, applied: list[Settings], **given: ConfiguredValue) -> Lines:
    """Reload after a line was added to the config file; return the log lines."""
    read = partial(loader.reload, {"config": ConfiguredValue(str(config), "a flag"), **given})
    reloader = Reloader(
        read(), read, apply=applied.append, refresh_tokens=refresh_no_tokens, manager=ServiceManager({})
    )
    add(config, text)
    with capture_logs() as lines:
        await reloader.reload()
    return list(map(dict, lines))


async def test_changed_limits_apply(config: Path) -> None:
    applied: list[Settings] = []
    [line] = await reload_after(config, "limit-status = '3/hour'\nmax-streams = 5\n", applied)
    assert (applied[0].limit_status, applied[0].max_streams, applied[0].limit_list) == (
        "3/hour",
        5,
        "7/minute",
    )
    assert (line["event"], line["changed"]) == ("reload", {"limit-status": "3/hour", "max-streams": 5})
    assert line["needs_restart"] == []


async def test_flag_precedes_the_reloaded_file(config: Path) -> None:
    applied: list[Settings] = []
    flag = ConfiguredValue("9/minute", "the flag --limit-status")
    [line] = await reload_after(config, "limit-status = '3/hour'\n", applied, limit_status=flag)
    assert applied[0].limit_status == "9/minute"
    assert line["changed"] == {}


async def test_other_changed_options_are_named_and_do_not_apply(config: Path) -> None:
    applied: list[Settings] = []
    text = "port = 1\nshared-state = 'redis://:secret@a/0'\n"
    [line] = await reload_after(config, text, applied)
    assert line["needs_restart"] == ["port", "shared-state"]
    assert "secret" not in str(line)
    assert applied[0].port == 8080


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("limit-status = 'often'\nmax-streams = 5\n", "limit-status: 'often' is not a rate"),
        (f"max-streams = {'9' * 5000}\n", "is not valid TOML"),
        (f"max-streams = {'[' * 5000}{']' * 5000}\n", "is not valid TOML"),
    ],
)
async def test_invalid_file_changes_nothing(text: str, reason: str, config: Path) -> None:
    applied: list[Settings] = []
    [line] = await reload_after(config, text, applied)
    assert (line["event"], applied) == ("reload-failed", [])
    assert reason in line["reason"]


async def test_service_ends_while_its_file_is_read(start_process: StartProcess, config: Path) -> None:
    service = start_process("--config", config, "--watch", "poll")
    replace_by_fifo(config)
    service.send_signal(signal.SIGHUP)
    writers: list[int] = []
    await until(lambda: opens_for_writing(config, writers))
    try:
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    finally:
        os.close(*writers)


def replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def opens_for_writing(fifo: Path, writers: list[int]) -> bool:
    """Open a FIFO if another program reads it, which then waits for what is written."""
    with suppress(OSError):
        writers.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    return bool(writers)


def test_every_limit_can_change() -> None:
    named = {name for name in Settings.__dataclass_fields__ if name.startswith(("limit_", "max_"))}
    assert named - {"max_age", "max_connections", "max_link_age"} == CHANGEABLE


async def test_lower_limit_ends_no_download_in_progress() -> None:
    token = Token("a", "anna", frozenset(), bytes(32), 0)
    slots = DownloadSlots(40, 40, lambda _limit: None)
    with ExitStack() as downloads:
        for _ in range(4):
            downloads.enter_context(slots.hold(token))
        slots.set_limits(40, 2)
        assert slots.taken == 4
        assert not slots.has_slot_for(token)


async def test_sighup_applies_limits_to_requests_that_were_counted_before(
    start_process: StartProcess,
    make_job: MakeJob,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_job()
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        service = start_process("--config", config, "--watch", "poll")
        assert manager.recv(100) == b"READY=1"
        for _ in range(5):
            assert (await service.get("/api/jobs/job-1")).status == 200
        add(config, "limit-status = '6/minute'\n")
        service.send_signal(signal.SIGHUP)
        await until(lambda: service.lines("reload"))
        assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(100) == b"READY=1"
    statuses = [(await service.get("/api/jobs/job-1")).status for _ in range(3)]
    assert statuses == [200, 429, 429]
