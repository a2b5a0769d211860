from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobsvc.cli.client import jobs as jobs_module
from tests.cli.client.conftest import RunClient, service_with
from tests.conftest import MakeJob
from tests.programs.service_runner import Process


def write_jobs(make_job: MakeJob) -> None:
    old = datetime.now(UTC) - timedelta(days=2)
    make_job("queued", createdAt="2026-01-04T00:00:00Z")
    make_job(
        "rendering",
        status="rendering",
        progress=42,
        phase="beauty\x1b[31m",
        framesDone=105,
        framesTotal=250,
        createdAt="2026-01-03T00:00:00Z",
    )
    make_job("done", output=b"film", createdAt="2026-01-02T00:00:00Z", updatedAt=old.isoformat())
    make_job("failed", status="failed", error="No\nlicense 許可", createdAt="2026-01-01T00:00:00Z")
    make_job("other", owner="ben")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with service_with(tmp_path_factory.mktemp("service"), write_jobs) as running:
        yield running


def test_ids_are_one_per_line_newest_first(run: RunClient) -> None:
    result = run("jobs", "-o", "id")
    assert (result.stdout, result.exit_code) == ("queued\nrendering\ndone\nfailed\n", 0)


def test_status_can_be_repeated(run: RunClient) -> None:
    result = run("jobs", "-o", "id", "--status", "failed", "--status", "queued")
    assert result.stdout == "queued\nfailed\n"


def test_unknown_status_is_wrong_use(run: RunClient) -> None:
    assert run("jobs", "--status", "done").exit_code == 2


@pytest.mark.parametrize("since", ["1d", "36h"])
def test_since_selects_jobs_that_changed_later(run: RunClient, since: str) -> None:
    assert run("jobs", "-o", "id", "--since", since).stdout == "queued\nrendering\nfailed\n"


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+00:00"])
def test_since_can_be_a_point_in_time(run: RunClient, form: str) -> None:
    since = f"{datetime.now(UTC) - timedelta(hours=1):{form}}"
    assert run("jobs", "-o", "id", "--since", since).stdout == "queued\nrendering\nfailed\n"


def test_time_without_a_zone_is_local(run: RunClient) -> None:
    since = f"{datetime.now(UTC).astimezone() - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    assert run("jobs", "-o", "id", "--since", since).stdout == "queued\nrendering\nfailed\n"
    assert run("jobs", "-o", "id", "--since", "2026-01-01").exit_code == 0


@pytest.mark.parametrize("since", ["yesterday", "3", "2x", "2026-13-01", ""])
def test_time_without_its_unit_is_wrong_use(run: RunClient, since: str) -> None:
    result = run("jobs", "--since", since)
    assert result.exit_code == 2
    assert "is not a time" in result.stderr


def test_limit_is_the_number_of_jobs(run: RunClient) -> None:
    assert run("jobs", "-o", "id", "--limit", "2").stdout == "queued\nrendering\n"


def test_json_is_one_array_of_documents(run: RunClient) -> None:
    found = json.loads(run("jobs", "-o", "json").stdout)
    assert [job["id"] for job in found] == ["queued", "rendering", "done", "failed"]
    assert found[1]["framesDone"] == 105


def test_json_of_no_jobs_is_an_empty_array(run: RunClient) -> None:
    assert json.loads(run("jobs", "-o", "json", "--status", "canceled").stdout) == []


def test_json_lines_are_one_document_a_line(run: RunClient) -> None:
    lines = run("jobs", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["queued", "rendering", "completed", "failed"]
    assert json.loads(lines[1])["phase"] == "beauty\x1b[31m"


def test_table_in_a_pipe_is_plain_complete_and_aligned(run: RunClient) -> None:
    lines = run("jobs").stdout.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "PROGRESS", "UPDATED", "DETAIL"]
    assert [line.split("  ")[-1].lstrip() for line in lines[1:]] == [
        lines[1].split()[-1],
        "beauty\\x1b[31m, frame 105 of 250",
        lines[3].split()[-1],
        "No license 許可",
    ]
    assert len({line.index("%") for line in lines[1:]}) == 1
    for title in ("ID", "STATUS", "UPDATED"):
        column = lines[0].index(title)
        assert all(f" {line}"[column : column + 2].split() == [line[column]] for line in lines[1:])


def test_table_has_a_limit_and_says_so(run: RunClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_TABLE_LIMIT", 2)
    result = run("jobs")
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == "These are the 2 newest jobs; --limit N shows more.\n"
    assert run("jobs", "--limit", "3").stderr == ""


def test_no_jobs_is_said_on_standard_error(run: RunClient) -> None:
    result = run("jobs", "--status", "canceled")
    assert (result.exit_code, result.stderr) == (0, "No jobs.\n")


def test_wrong_token_has_the_exit_code_of_authorization(run: RunClient) -> None:
    result = run("jobs", JOBSVC_TOKEN="jsvc_wrong")  # noqa: S106 - not a password
    assert result.exit_code == 4
    assert result.stderr.startswith("jobsvc: ")
    assert "`jobsvc login`" in result.stderr
    assert "jsvc_wrong" not in result.output


def test_unreachable_service_is_another_error(run: RunClient) -> None:
    result = run("jobs", "--retries", "0", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "--url" in result.stderr


def test_missing_configuration_is_wrong_use(run: RunClient) -> None:
    result = run("jobs", JOBSVC_URL="", JOBSVC_TOKEN="")
    assert result.exit_code == 2
    assert "jobsvc login" in result.stderr
