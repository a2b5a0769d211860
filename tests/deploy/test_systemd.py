"""The systemd units of deploy/: valid, hardened, and jobsvc does all its work within their limits."""

from __future__ import annotations

import asyncio
import ctypes.util
import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import orjson
import pytest
from click.testing import CliRunner

from jobsvc.cli import main
from jobsvc.storage.state import link_key
from tests.conftest import MakeJob, StartProcess
from tests.deploy.unit_sandbox import UNIT
from tests.eventually import pause
from tests.programs.external_programs import SEARCH_PATH, needs

SYSTEMD: Final = UNIT.parent
EXPOSURE: Final = "12"
"""1.2, the greatest exposure that is accepted."""
PROBLEMS: Final = ("watcher-lost", "worker-failed", "record-process-lost", "index-fault", "request-failed")

needs_systemd = needs("systemd-analyze")


def systemd(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)),
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": SEARCH_PATH, "SYSTEMD_LOG_LEVEL": "info"},
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy of the units for a service that is installed, with an instance of the templates."""
    folder = tmp_path / "units"
    folder.mkdir()
    for file in (*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.socket")):
        text = file.read_text("utf-8").replace("/opt/jobsvc/bin/jobsvc", sys.executable)
        (folder / file.name.replace("@", "@8081")).write_text(text, "utf-8")
    return folder


@needs_systemd
def test_units_are_valid(units: Path) -> None:
    files = sorted(units.iterdir())
    assert len(files) == 3
    result = systemd("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *files)
    assert (result.returncode, result.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", ["jobsvc.service", "jobsvc@8081.service"])
def test_exposure_is_low(units: Path, name: str) -> None:
    words = ("--no-pager", "--offline=true", f"--threshold={EXPOSURE}", units / name)
    result = systemd("systemd-analyze", "security", *words)
    assert result.returncode == 0, result.stdout


def test_unit_of_replicas_has_the_settings_of_the_single_one() -> None:
    def common(name: str) -> list[str]:
        lines = (SYSTEMD / name).read_text("utf-8").splitlines()
        return [line for line in lines if not re.match(r"#|Description=|ExecStart=", line)]

    assert common("jobsvc@.service") == common("jobsvc.service")


@needs("systemd-sysusers", "systemd-tmpfiles")
def test_user_and_directories_are_created(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can create users")
    (tmp_path / "etc").mkdir()
    for program, file in (("systemd-sysusers", "sysusers.conf"), ("systemd-tmpfiles", "tmpfiles.conf")):
        create = ("--create",) if program == "systemd-tmpfiles" else ()
        result = systemd(program, *create, f"--root={tmp_path}", SYSTEMD / file)
        assert result.returncode == 0, result.stderr
    assert re.search(r"^jobsvc:", (tmp_path / "etc" / "passwd").read_text(), re.MULTILINE)
    assert (tmp_path / "var/lib/jobsvc").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc/jobsvc").stat().st_mode & 0o777 == 0o750


def test_example_configuration_is_valid(tmp_path: Path, jobs_root: Path) -> None:
    text = (SYSTEMD / "jobsvc.toml").read_text("utf-8")
    secrets = tmp_path / "etc" / "jobsvc"
    secrets.mkdir(parents=True)
    link_key.create_shared(secrets / "link.key")
    for commented in (text, text.replace("# secrets-dir", "secrets-dir").replace("# shared", "shared")):
        file = tmp_path / "jobsvc.toml"
        file.write_text(
            commented.replace("/var/lib", str(tmp_path)).replace("/etc", str(tmp_path / "etc")), "utf-8"
        )
        words = ("serve", str(jobs_root), "--config", str(file), "--check-config")
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output


@needs_systemd
@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="not installed: libseccomp")
async def test_service_does_its_work_with_the_system_calls_of_the_unit(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    """With the processes that watch directories and decode large records."""
    film = os.urandom(300_000)
    make_job(output=film)
    make_job("job-2", status="rendering", metadata={"x": "y" * 100_000})
    service = await asyncio.to_thread(start_process, "--watch", "events", module="tests.deploy.unit_sandbox")
    async with asyncio.timeout(20):
        while await service.metric("jobsvc_watcher_healthy") != 1:
            await pause()
    answer = await service.download("job-1", ("Want-Repr-Digest", "sha-256=1"))
    assert (answer.status, answer.body) == (200, film)
    make_job("job-2", status="rendering", progress=7, metadata={"x": "y" * 100_000})
    async with asyncio.timeout(20):
        while orjson.loads((await service.get("/api/jobs/job-2")).body)["progress"] != 7:
            await pause()
        while "outputSha256" not in (job := orjson.loads((await service.get("/api/jobs/job-1")).body)):
            await pause()
    assert job["outputSha256"] == hashlib.sha256(film).hexdigest()
    assert len(await service.wait_for_downloads(1)) == 1
    service.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(service.wait) == 0
    assert not [event for event in PROBLEMS if service.lines(event)]
