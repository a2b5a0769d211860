from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cli.client.conftest import RunClient, service_with
from tests.conftest import MakeJob, put
from tests.programs.service_runner import Process


def write_jobs(make_job: MakeJob) -> None:
    folder = make_job(
        "done",
        output=b"film" * 1000,
        outputs=[
            {"name": "main", "path": "output/film.mp4", "role": "main"},
            {"name": "beauty", "path": "output/beauty.####.exr"},
        ],
        projectPath="shots/0100.blend",
        metadata={"shot": "sh\x07010", "passes": ["a", "b"]},
    )
    put(folder / "output" / "beauty.1001.exr", b"frame")
    make_job("list", output=b"a job that is called list")
    make_job("failed", status="failed", error="No license.", log=b"line 1\n\x1b[2Jline 2\n")
    make_job("rendering", status="rendering", progress=42, phase="beauty")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with service_with(tmp_path_factory.mktemp("service"), write_jobs) as running:
        yield running


def test_state_of_a_completed_job_has_times_metadata_and_outputs(run: RunClient) -> None:
    result = run("status", "done")
    lines = result.stdout.splitlines()
    assert lines[0] == "done  completed  100 %"
    labels = {line.split("  ")[0]: line.split("  ")[-1].lstrip() for line in lines[1 : lines.index("")]}
    assert labels.keys() >= {"created", "updated", "project", "shot", "passes"}
    assert labels["shot"] == "sh\\x07010"
    assert labels["passes"] == '["a", "b"]'
    rows = [line.split() for line in lines[lines.index("") + 1 :]]
    assert rows == [
        ["OUTPUT", "ROLE", "KIND", "SIZE", "TYPE"],
        ["main", "main", "file", "3.91", "KiB", "video/mp4"],
        ["beauty", "data", "sequence"],
    ]


def test_state_of_a_failed_job_has_the_error_and_the_end_of_its_log(run: RunClient) -> None:
    result = run("status", "failed")
    assert result.exit_code == 0
    assert result.stdout.startswith("failed  failed  0 %\nerror")
    assert "  No license.\n" in result.stdout
    assert result.stdout.endswith("\nThe end of the log:\n  line 1\n  \\x1b[2Jline 2\n")


def test_state_of_a_job_in_progress_says_what_it_is_doing(run: RunClient) -> None:
    lines = run("status", "rendering").stdout.splitlines()
    assert lines[0] == "rendering  rendering  42 %"
    assert lines[1].split() == ["doing", "beauty"]


def test_json_is_the_document_of_the_service(run: RunClient) -> None:
    document = json.loads(run("status", "done", "-o", "json").stdout)
    assert (document["id"], document["status"]) == ("done", "completed")
    assert document["metadata"] == {"shot": "sh\x07010", "passes": ["a", "b"]}


@pytest.mark.parametrize("command", ["status", "link"])
def test_unknown_job_is_not_found(run: RunClient, command: str) -> None:
    result = run(command, "nothing")
    assert result.exit_code == 6
    assert result.stdout == ""
    assert result.stderr.startswith("jobsvc: No job with this id")
    assert result.stderr.count("\n") == 1
    assert "(request " in result.stderr


@pytest.mark.parametrize("job_id", ["", ".", "..", "../x", "a b", "-"])
def test_text_that_is_no_job_id_is_wrong_use(run: RunClient, job_id: str) -> None:
    assert run("status", "--", job_id).exit_code == 2


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:  # noqa: S310 - of the test's service
        data: bytes = response.read()
    return data


def test_link_is_a_url_that_needs_no_token(run: RunClient) -> None:
    result = run("link", "done", "--expires", "10m")
    assert fetch(result.stdout.strip()) == b"film" * 1000
    assert result.stderr.startswith("It is valid until 2")


def test_link_to_a_file_and_to_an_archive(run: RunClient) -> None:
    assert fetch(run("link", "done", "--file", "beauty/beauty.1001.exr").stdout.strip()) == b"frame"
    assert b"beauty/beauty.1001.exr" in fetch(run("link", "done", "--archive", "tar").stdout.strip())


def test_link_to_a_file_and_an_archive_at_once_is_wrong_use(run: RunClient) -> None:
    assert run("link", "done", "--file", "main", "--archive", "zip").exit_code == 2


def test_link_to_a_job_that_failed_has_its_exit_code(run: RunClient) -> None:
    result = run("link", "failed")
    assert result.exit_code == 3
    assert "`jobsvc logs ID` shows why." in result.stderr


def test_link_to_a_job_in_progress_is_another_error(run: RunClient) -> None:
    result = run("link", "rendering")
    assert result.exit_code == 1
    assert "`jobsvc wait ID` or `jobsvc download --wait ID` waits for it." in result.stderr


def test_link_to_a_missing_file_is_not_found(run: RunClient) -> None:
    assert run("link", "done", "--file", "beauty/beauty.9.exr").exit_code == 6


@pytest.mark.parametrize("expires", ["0", "1y", "-1h", "soon"])
def test_lifetime_without_a_unit_is_wrong_use(run: RunClient, expires: str) -> None:
    assert run("link", "done", f"--expires={expires}").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [["create", "list"], ["--", "list"], ["--expires", "1h", "list"], ["create", "--", "list"]],
    ids=" ".join,
)
def test_link_can_be_to_a_job_that_is_called_like_a_command(run: RunClient, words: list[str]) -> None:
    assert fetch(run("link", *words).stdout.strip()) == b"a job that is called list"


def test_link_without_a_job_is_wrong_use_and_names_the_commands(run: RunClient) -> None:
    result = run("link")
    assert result.exit_code == 2
    for name in ("create", "list", "revoke"):
        assert f"\n  {name} " in result.output


def test_id_of_a_created_link_is_shown(run: RunClient) -> None:
    result = run("link", "done")
    assert re.search(r" Its id is [0-9a-f]{16}\.$", result.stderr)
