from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobsvc.settings.parsers import YEAR_S
from tests.contract.service import WITH_FEW_FILES, Service, running, until

ENDLESS = "1000000/second"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without limits that a test could reach."""
    budgets = ("status", "list", "events", "logs", "download", "files", "auth-failures")
    limits = [word for budget in budgets for word in (f"--limit-{budget}", ENDLESS)]
    longest = ("--max-link-age", str(YEAR_S))
    with running(tmp_path_factory.mktemp("ample"), *limits, *longest) as found:
        yield found


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Allows two requests per token, one download at a time, and one wrong token."""
    budgets = ("status", "list", "events", "logs", "download", "files")
    limits = [word for budget in budgets for word in (f"--limit-{budget}", "2/day")]
    limits += ["--limit-auth-failures", "1/day"]
    with running(tmp_path_factory.mktemp("strict"), *limits, "--max-downloads-per-token", "1") as found:
        yield found


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Allows a token one open stream."""
    limits = [word for budget in ("status", "events", "logs") for word in (f"--limit-{budget}", ENDLESS)]
    with running(tmp_path_factory.mktemp("narrow"), *limits, "--max-streams-per-token", "1") as found:
        yield found


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Allows a job one file."""
    with running(tmp_path_factory.mktemp("crowded"), program=WITH_FEW_FILES) as found:
        yield found


@pytest.fixture(scope="module")
def unavailable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Has lost its storage, and has noticed."""
    with running(tmp_path_factory.mktemp("unavailable")) as found:
        found.jobs.rename(found.jobs.with_name("elsewhere"))
        until(lambda: found.ask("GET", "/readyz").status_code == 503)
        yield found


@pytest.fixture(scope="module")
def indexing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Has not completed its first index, and never will."""
    with running(tmp_path_factory.mktemp("indexing"), listed=False) as found:
        yield found
