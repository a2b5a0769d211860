"""openapi-python-client generates a client from the served description, and this client works.

It stands for the generators that others use.
"""

from __future__ import annotations

import datetime as dt
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import pytest
import requests

from tests.contract.service import (
    CANCELED,
    COMPLETED,
    FAILED,
    FRAMES,
    FRAMES_FILES,
    RENDERING,
    SAMPLES,
    WITHOUT_OUTPUT,
    Service,
)

PACKAGE: Final = "generated_client"
WORDS: Final = ("generate", "--meta", "none", "--fail-on-warning", "--output-path", PACKAGE)


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the package was generated; it can be imported while the tests run."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(requests.get(f"{service.url}/api/openapi.json", timeout=20).content)
    programs = Path(sys.executable).parent  # it formats the code with ruff
    result = subprocess.run(
        [programs / "openapi-python-client", *WORDS, "--path", "openapi.json"],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def client(folder: Path, service: Service) -> Iterator[Any]:
    package = importlib.import_module(PACKAGE)
    with package.AuthenticatedClient(
        base_url=service.url, token=service.token, raise_on_unexpected_status=True
    ) as client:
        yield client


def call(operation: str, client: Any, *arguments: str, **options: Any) -> Any:
    """Call the function of an operation, and return the parsed response."""
    return importlib.import_module(f"{PACKAGE}.api.jobs.{operation}").sync(
        *arguments, client=client, **options
    )


def models() -> Any:
    return importlib.import_module(f"{PACKAGE}.models")


def test_generated_code_is_complete_and_valid(folder: Path) -> None:
    for path in folder.rglob("*.py"):
        compile(path.read_bytes(), path, "exec")
    operations = {path.stem for path in folder.glob(f"{PACKAGE}/api/*/*.py")}
    assert operations >= {"list_jobs", "get_job", "list_files", "download_file", "create_download_link"}


def test_jobs_are_listed_page_by_page(client: Any) -> None:
    # A sample that is rendering has a leap second, which Python's datetime does not know.
    final = [status for status in models().Status if status not in {"rendering", "queued"}]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = call("list_jobs", client, status=final, limit=2, **cursor)
        found += [job.id for job in page.jobs]
        if page.next_cursor is None:
            break
        cursor = {"cursor": page.next_cursor}
    assert {COMPLETED, FAILED, CANCELED} <= set(found)
    assert len(found) == len(set(found))


def test_jobs_are_selected_by_status_and_time(client: Any) -> None:
    status = models().Status
    page = call("list_jobs", client, status=[status.FAILED, status.QUEUED], limit=200)
    assert {job.status for job in page.jobs} == {status.FAILED, status.QUEUED}
    new = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    assert call("list_jobs", client, updated_since=new).jobs == []


def test_status_of_a_job_has_types(client: Any) -> None:
    job = call("get_job", client, COMPLETED)
    assert (job.id, job.status, job.done) == (COMPLETED, models().Status.COMPLETED, True)
    assert job.created_at < job.updated_at
    assert job.created_at.tzinfo is not None
    assert job.outputs[0].name == "main"
    assert call("get_job", client, RENDERING).progress < 100


def test_files_are_listed_and_downloaded(client: Any) -> None:
    files = call("list_files", client, FRAMES).files
    assert {file.path for file in files} == {Path(path).name for path in FRAMES_FILES} - {"oak 1.png"} | {
        "wood/oak 1.png"
    }
    for file in files:
        content = call("download_file", client, FRAMES, file.output, file.path)
        assert len(content.payload.read()) == file.size


def test_main_output_is_downloaded(client: Any) -> None:
    (film,) = (SAMPLES / COMPLETED / "output").glob("*.mp4")
    assert call("download_output", client, COMPLETED).payload.read() == film.read_bytes()


def test_link_to_an_archive_is_created(client: Any, service: Service) -> None:
    body = models().LinkRequest.from_dict({"expiresIn": 60, "archive": "tar"})
    link = call("create_download_link", client, COMPLETED, body=body)
    remaining = link.expires_at - dt.datetime.now(dt.UTC)
    assert dt.timedelta(0) < remaining <= dt.timedelta(seconds=60)
    assert (
        requests.get(urljoin(service.url, link.url), timeout=20).headers["Content-Type"]
        == "application/x-tar"
    )


def test_link_to_the_main_output_is_created_without_a_body(client: Any, service: Service) -> None:
    link = call("create_download_link", client, COMPLETED)
    assert requests.get(urljoin(service.url, link.url), timeout=20).status_code == 200


def test_token_and_its_budgets_are_known(client: Any) -> None:
    token = call("get_token", client)
    assert token.owner == "demo"
    assert token.budgets["status"].remaining > 0


def test_errors_are_problems(client: Any) -> None:
    code = models().ProblemCode
    assert call("get_job", client, "unknown").code == code.JOB_NOT_FOUND
    assert call("download_output", client, WITHOUT_OUTPUT).code == code.OUTPUT_MISSING
    assert call("list_files", client, RENDERING).code == code.JOB_NOT_COMPLETED


def test_responses_to_head_are_not_parsed(client: Any) -> None:
    for operation in ("head_job", "head_output", "head_files"):
        module = importlib.import_module(f"{PACKAGE}.api.jobs.{operation}")
        found = module.sync_detailed(COMPLETED, client=client)
        assert (found.status_code, found.parsed) == (200, None), operation
        missing = module.sync_detailed("unknown", client=client)
        assert (missing.status_code, missing.parsed) == (404, None), operation


def test_unchanged_job_is_a_304(client: Any) -> None:
    module = importlib.import_module(f"{PACKAGE}.api.jobs.get_job")
    etag = module.sync_detailed(COMPLETED, client=client).headers["ETag"]
    again = module.sync_detailed(COMPLETED, client=client, if_none_match=etag)
    assert (again.status_code, again.parsed) == (304, None)
