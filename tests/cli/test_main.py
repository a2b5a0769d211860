from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobsvc import __version__
from jobsvc.cli import main

ROOT = Path(__file__).parents[2]


def test_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"jobsvc, version {__version__}\n"


def test_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["sevre"])
    assert result.exit_code == 2
    assert "No such command 'sevre'" in result.output


def test_commands_are_listed_in_order_of_first_use() -> None:
    assert list(main.list_commands(None)) == ["serve", "token", "check", "demo"]  # type: ignore[arg-type]  # not called


@pytest.mark.parametrize("command", ["serve", "token", "check"])
def test_help_imports_no_web_server(command: str) -> None:
    program = (
        "import sys; from jobsvc.cli import main\n"
        f"main([{command!r}, '--help'], standalone_mode=False)\n"
        "sys.exit('aiohttp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
