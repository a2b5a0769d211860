from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.cli.operation.systemd_unit import _quoted

UNITS = Path(__file__).parents[3] / "deploy" / "systemd"


def unit(*words: str) -> Result:
    return CliRunner().invoke(main, ["systemd-unit", *words])


@pytest.mark.parametrize(
    ("words", "name"),
    [([], "jobsvc.service"), (["--socket"], "jobsvc.socket"), (["--template"], "jobsvc@.service")],
)
def test_unit_is_that_of_the_project_with_the_path_of_this_installation(words: list[str], name: str) -> None:
    result = unit(*words)
    assert result.exit_code == 0
    expected = (UNITS / name).read_text()
    assert result.stdout == expected.replace("/opt/jobsvc/bin/jobsvc", f"{sys.prefix}/bin/jobsvc")
    assert (f"{sys.prefix}/bin/jobsvc" in result.stdout) == ("Exec" in expected)


def test_installation_that_the_unit_hides_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/anna/venv")
    assert "ProtectHome=yes hides /home/anna/venv/bin/jobsvc" in unit().stderr
    monkeypatch.setattr(sys, "prefix", "/srv/venv")
    assert unit().stderr == ""


def test_path_is_escaped_for_systemd() -> None:
    assert _quoted(Path("/a b/100%/$x")) == "/a\\x20b/100%%/$$x"
