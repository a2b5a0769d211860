from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.client.conftest import RunClient, service_with
from tests.conftest import MakeJob
from tests.programs.service_runner import Process


def write_jobs(make_job: MakeJob) -> None:
    make_job("job-1")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with service_with(tmp_path_factory.mktemp("service"), write_jobs) as running:
        yield running


@pytest.fixture
def url(service: Process) -> str:
    return f"http://127.0.0.1:{service.port}"


NOTHING = {"JOBSVC_URL": "", "JOBSVC_TOKEN": ""}


def test_login_saves_what_later_commands_use(run: RunClient, service: Process, url: str) -> None:
    result = run("login", url, stdin=f"{service.token}\n", **NOTHING)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"Logged in to {url}: owner anna, token ")
    assert first.endswith(" (Tests), scopes jobs:read, outputs:read, expires never.")
    assert second.startswith("Saved as the profile 'default' in ")
    assert str(service.token) not in result.output
    assert run("jobs", "-o", "id", **NOTHING).stdout == "job-1\n"


def test_token_that_the_service_refuses_is_not_saved(run: RunClient, url: str, tmp_path: Path) -> None:
    result = run("login", url, stdin="jsvc_wrong\n", **NOTHING)
    assert result.exit_code == 4
    assert "jsvc_wrong" not in result.output
    assert not list(tmp_path.rglob("profiles.json"))


def test_login_without_a_token_is_wrong_use(run: RunClient, url: str) -> None:
    result = run("login", url, stdin="", **NOTHING)
    assert (result.exit_code, result.stderr) == (
        2,
        "jobsvc: Token is missing. Write it to standard input.\n",
    )


def test_login_without_a_url_is_wrong_use(run: RunClient) -> None:
    result = run("login", stdin="x\n", **NOTHING)
    assert result.exit_code == 2
    assert "JOBSVC_URL" in result.stderr


def test_login_to_what_is_no_url_is_wrong_use(run: RunClient) -> None:
    result = run("login", "http://[", stdin="x\n", **NOTHING)
    assert (result.exit_code, "has an invalid host" in result.stderr) == (2, True)


def test_login_again_needs_no_url(run: RunClient, service: Process, url: str) -> None:
    run("login", url, stdin=f"{service.token}\n", **NOTHING)
    assert run("login", stdin=f"{service.token}\n", **NOTHING).stderr.startswith(f"Logged in to {url}")


def test_profiles_are_separate(run: RunClient, service: Process, url: str) -> None:
    run("login", url, "--profile", "night", stdin=f"{service.token}\n", **NOTHING)
    assert run("whoami", "--profile", "night", **NOTHING).exit_code == 0
    assert run("whoami", JOBSVC_PROFILE="night", **NOTHING).exit_code == 0
    assert run("whoami", **NOTHING).exit_code == 2


def test_login_says_which_variables_take_precedence(run: RunClient, service: Process, url: str) -> None:
    result = run("login", url, stdin=f"{service.token}\n")
    assert "Warning: JOBSVC_URL, JOBSVC_TOKEN are set and used instead of the profile." in result.stderr


def test_login_warns_of_a_url_without_encryption(run: RunClient) -> None:
    result = run("login", "http://render.invalid", stdin="", **NOTHING)
    assert "without encryption" in result.stderr


def test_logout_removes_the_profile(run: RunClient, service: Process, url: str) -> None:
    run("login", url, stdin=f"{service.token}\n", **NOTHING)
    assert run("logout", **NOTHING).stderr == "The profile 'default' is removed.\n"
    assert run("jobs", **NOTHING).exit_code == 2
    again = run("logout", **NOTHING)
    assert (again.exit_code, again.stderr) == (0, "The profile 'default' does not exist.\n")


def test_whoami_says_whose_token_it_is(run: RunClient, url: str) -> None:
    lines = [line.split(maxsplit=1) for line in run("whoami").stdout.splitlines()]
    found = dict(lines)
    assert found["url"] == url
    assert (found["owner"], found["label"], found["expires"]) == ("anna", "Tests", "never")
    assert found["scopes"] == "jobs:read, outputs:read"


def test_whoami_as_json_has_the_budgets(run: RunClient, url: str) -> None:
    document = json.loads(run("whoami", "-o", "json").stdout)
    assert document["url"] == url
    assert document["owner"] == "anna"
    assert "status" in document["budgets"]


def test_no_command_has_an_option_for_the_token(run: RunClient) -> None:
    for command in ("login", "jobs", "status", "wait", "logs", "link", "whoami"):
        assert "--token" not in run(command, "--help").stdout
