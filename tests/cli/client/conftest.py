"""Fixtures of client commands: a service with jobs, and the commands in this process or as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state import token_file
from tests.conftest import MakeJob, job_maker
from tests.programs.service_runner import PROJECT, Process, start_service_process, stop_process


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings of the client, and let it find no profile but those of the test."""
    for name in os.environ:
        if name.startswith(("JOBSVC_", "XDG_")) or name in {
            "NO_COLOR",
            "COLUMNS",
            "TERM",
            "PYTHONUNBUFFERED",
        }:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TERM", "xterm-256color")


@contextmanager
def service_with(folder: Path, write_jobs: Callable[[MakeJob], None], *words: str) -> Iterator[Process]:
    """Serve jobs that a function writes, for the tests of a module; `words` are further arguments."""
    (folder / "jobs").mkdir()
    (folder / "state").mkdir(mode=0o700)
    write_jobs(job_maker(folder / "jobs"))
    token = token_file.create(
        folder / "state" / "tokens.json", "anna", [JOBS_READ, OUTPUTS_READ], None, "Tests"
    )[0]
    arguments = (folder / "jobs", "--watch", "poll", "--limit-list", "1000000/second", *words)
    service = start_service_process(arguments, folder / "state", folder / "said", token)
    try:
        yield service
    finally:
        stop_process(service.process)


def variables(service: Process) -> dict[str, str]:
    """Return the environment that leads to a service."""
    return {"JOBSVC_URL": f"http://127.0.0.1:{service.port}", "JOBSVC_TOKEN": str(service.token)}


class RunClient(Protocol):
    """Runs a client command in this process."""

    def __call__(self, *words: str, stdin: str | None = None, **environment: str) -> Result:
        """`environment` is added to the URL and the token of the service, and takes precedence."""


@pytest.fixture
def run(service: Process) -> RunClient:
    """Run commands against the fixture `service` of the test's module."""

    def invoke(*words: str, stdin: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(main, words, input=stdin, env=variables(service) | environment)

    return invoke


def start_client(service: Process, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Start a client command as a process, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobsvc", *words],
        cwd=PROJECT,
        env={**os.environ, **variables(service), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
