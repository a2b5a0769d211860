"""A service with a job that has outputs of all kinds; test modules with a job of their own override it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import render


@pytest.fixture
def folder(make_job: MakeJob) -> Path:
    """The directory of a completed job with a sequence, a directory and a file."""
    return render(make_job)


@pytest.fixture
async def service(serve: Serve, folder: Path) -> Service:
    assert folder.name == "job-1"
    return await serve()
