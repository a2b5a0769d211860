from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobsvc import __version__
from jobsvc.cli import main

ROOT = Path(__file__).parents[2]

SERVICE = ["serve", "token", "secrets", "check", "config", "healthcheck", "systemd-unit", "man", "demo"]
FARM = ["run", "farm"]
CLIENT = [
    "login",
    "logout",
    "whoami",
    "jobs",
    "status",
    "wait",
    "logs",
    "download",
    "sync",
    "link",
    "completion",
]
JOBS = ["jobs", "--retries", "0", "-o", "id"]
"""Is run to its end, but there is no service."""
SERVER_MODULES = frozenset(
    {"aiohttp", "watchfiles", "orjson", "uvloop", "structlog", "prometheus_client", "jobsvc.settings"}
)


def command(name: str) -> click.Command:
    """Import a command."""
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def test_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"jobsvc, version {__version__}\n"


def test_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["sevre"])
    assert result.exit_code == 2
    assert "No such command 'sevre'" in result.output


def test_commands_are_listed_in_order_of_first_use() -> None:
    assert list(main.list_commands(click.Context(main))) == [*SERVICE, *FARM, *CLIENT]


def test_help_lists_the_commands_by_who_uses_them() -> None:
    page = CliRunner().invoke(main, ["--help"]).output
    service, farm, client = re.split(r"\n(?:Farm|Client):\n", page.partition("Service:\n")[2])
    assert re.findall(r"^  ([\w-]+)", service, re.MULTILINE) == SERVICE
    assert re.findall(r"^  (\w+)", farm, re.MULTILINE) == FARM
    assert re.findall(r"^  (\w+)", client, re.MULTILINE) == CLIENT


@pytest.mark.parametrize("name", [*SERVICE, *FARM, *CLIENT])
def test_summary_of_the_list_is_that_of_the_command(name: str) -> None:
    page = " ".join(CliRunner().invoke(main, ["--help"], terminal_width=200).output.split())
    assert f" {name} {command(name).get_short_help_str(200).removesuffix('.')}. " in f"{page} "


@pytest.mark.parametrize("name", [*FARM, *CLIENT])
def test_help_of_each_command_for_users_has_an_example(name: str) -> None:
    page = CliRunner().invoke(main, [name, "--help"]).output
    assert "Examples:\n" in page
    assert re.search(rf"^    ?.*jobsvc {name}", page.partition("Examples:\n")[2], re.MULTILINE)


@pytest.mark.parametrize("words", [["serve", "--help"], ["token", "--help"], ["check", "--help"]])
def test_help_imports_no_web_server(words: list[str]) -> None:
    assert "aiohttp" not in imported(words)


@pytest.mark.parametrize(
    "words",
    [["--version"], ["--help"], ["healthcheck"], *([name, "--help"] for name in CLIENT), ["logout"], JOBS],
    ids=" ".join,
)
def test_client_commands_import_nothing_of_the_service(words: list[str]) -> None:
    assert not imported(words) & SERVER_MODULES


@pytest.mark.parametrize("words", [["--version"], JOBS], ids=" ".join)
def test_rich_is_imported_only_for_a_terminal(words: list[str]) -> None:
    assert "rich" not in imported(words)


def imported(words: list[str]) -> set[str]:
    """Return the modules that a command imports, in a process without settings."""
    program = (
        "import sys; from jobsvc.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    environment = {"HOME": "/nonexistent", "JOBSVC_URL": "http://127.0.0.1:1", "JOBSVC_TOKEN": "jsvc_x"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def test_commands_equal_those_of_the_documentation() -> None:
    assert sorted(documented_commands("configuration")) == sorted(SERVICE)
    assert documented_commands("client") == CLIENT


def documented_commands(page: str) -> list[str]:
    text = (ROOT / f"docs/{page}.md").read_text("utf-8")
    section = text.partition("\n## Commands\n")[2].partition("\n## ")[0]
    return list(dict.fromkeys(re.findall(r"^\| `jobsvc ([\w-]+)", section, re.MULTILINE)))


@pytest.mark.parametrize("name", ["create", "list", "revoke"])
def test_summary_of_a_command_about_links_is_its_own(name: str) -> None:
    group = command("link")
    assert isinstance(group, click.Group)
    page = " ".join(CliRunner().invoke(main, ["link", "--help"], terminal_width=200).output.split())
    found = group.get_command(click.Context(group), name)
    assert found is not None
    assert f" {name} {found.get_short_help_str(200).removesuffix('.')}. " in page
