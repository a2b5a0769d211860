from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobsvc.cli import main
from jobsvc.cli.operation.man import _escaped
from tests.programs.external_programs import needs


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    result = CliRunner().invoke(main, ["man", str(folder / "man1")])
    assert result.exit_code == 0
    return folder / "man1"


def test_each_command_has_a_page(pages: Path) -> None:
    names = {path.name for path in pages.iterdir()}
    assert {"jobsvc.1", "jobsvc-serve.1", "jobsvc-token-create.1", "jobsvc-config-show.1"} < names
    for command in main.list_commands(main.make_context("jobsvc", ["man", "/nonexistent"])):
        assert f"jobsvc-{command}.1" in names


def test_page_has_the_options_and_their_help(pages: Path) -> None:
    page = (pages / "jobsvc-serve.1").read_text()
    assert ".TP\n\\fB\\-\\-max\\-age SECONDS\\fR\nMaximum age of a status" in page
    assert "\nExit codes: 0 after SIGTERM;" in page


@needs("groff")
def test_pages_have_no_formatting_errors(pages: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", *sorted(map(str, pages.iterdir()))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@needs("man")
def test_page_can_be_read(pages: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-l", str(pages / "jobsvc-download.1")],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "120", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "jobsvc-download - Download the files of a completed job" in done.stdout
    assert "EXAMPLES\n       jobsvc download " in done.stdout


def test_text_is_escaped() -> None:
    assert _escaped(".x --a \\b '~'") == "\\&.x \\-\\-a \\eb '\\(ti'"


def test_directory_that_cannot_be_written_is_an_error() -> None:
    result = CliRunner().invoke(main, ["man", "/proc/man"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: /proc/man: ")
