"""Shares of real network file systems on this host; tests of unavailable ones are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import MakeJob, job_maker
from tests.network_storage.gluster import gluster
from tests.network_storage.share import NotPossible, Share
from tests.network_storage.sshfs import sshfs

SHARES: Final[dict[str, Callable[[Path], AbstractContextManager[Share]]]] = {
    "gluster": gluster,
    "sshfs": sshfs,
}


@pytest.fixture(params=SHARES)
def share(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Share]:
    scratch = tmp_path / request.param
    scratch.mkdir()
    try:
        with SHARES[request.param](scratch) as share:
            yield share
    except NotPossible as reason:
        pytest.skip(f"{request.param}: {reason}")


@pytest.fixture
def jobs_root(share: Share) -> Path:
    (share.writer / "jobs").mkdir()
    return share.reader / "jobs"


@pytest.fixture
def make_job(share: Share, jobs_root: Path) -> MakeJob:
    return job_maker(share.writer / "jobs")
