from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.settings import OPTIONS, ConfiguredValue, Settings, loader


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def show(*words: str | Path, **variables: str) -> Result:
    return CliRunner().invoke(main, ["config", "show", *map(str, words)], env=variables)


def shown(*words: str | Path, **variables: str) -> dict[str, dict[str, Any]]:
    result = show("--json", *words, **variables)
    assert result.exit_code == 0, result.output
    document: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return document


def test_each_option_has_its_value_and_source(tmp_path: Path) -> None:
    file = tmp_path / "jobsvc.toml"
    file.write_text("max_age = 2\nport = 3\nhost = 'file'\n")
    options = shown("jobs", "--config", file, "--port", "5", JOBSVC_HOST="variable")
    assert list(options) == [option.name for option in OPTIONS]
    assert options["jobs-root"] == {"value": str(Path.cwd() / "jobs"), "source": "argument JOBS_ROOT"}
    assert options["port"] == {"value": 5, "source": "flag --port"}
    assert options["host"] == {"value": "variable", "source": "environment variable JOBSVC_HOST"}
    assert options["max-age"] == {"value": 2.0, "source": f"{file}, key max_age"}
    assert options["max-streams"] == {"value": 4096, "source": "default"}
    assert options["secrets-dir"] == {"value": None, "source": "default"}


def test_output_is_a_config_file_of_the_same_settings(tmp_path: Path) -> None:
    words = [
        "/srv/a b", "--output-root", "/x", "--output-root", 'anna=/y"z', "--status-alias", "paused=queued",
        "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1", "--download-rate", "10Mi", "--public-url", "https://a.b/c",
        "--cors-origin", "https://c.d", "--cors-origin", "http://[::1]:3000",
        "--max-age", "0.5", "--instance", "a:1", "--watch", "poll", "--secrets-dir", "s", "--state-dir", "/z",
    ]  # fmt: skip
    file = tmp_path / "shown.toml"
    file.write_text(show(*words).stdout)
    from_file = loader.reload({"config": ConfiguredValue(str(file), "a test")})
    plain = {"jobs_root": Path("/srv/a b"), "download_rate": 10 << 20, "secrets_dir": Path.cwd() / "s"}
    assert {name: getattr(from_file, name) for name in plain} == plain
    again = show("--config", file).stdout
    assert tomllib.loads(again) == tomllib.loads(file.read_text())
    assert len(from_file.output_roots) == len(from_file.trusted_proxies) == len(from_file.cors_origins) == 2


def test_password_is_not_shown() -> None:
    for words in ([], ["--json"]):
        output = show("/srv", "--shared-state", "redis://user:secret@a:1/0?x=secret", *words).output
        assert "redis://user:***@a:1/0" in output
        assert "secret" not in output.replace("secrets-dir", "")


def test_password_in_an_invalid_url_is_not_shown(tmp_path: Path) -> None:
    for url in ("redis://u:sec ret@a/0", "redis//u:secret@a", "redis://u:secret@a:port"):
        (tmp_path / "a.toml").write_text(f"shared-state = {json.dumps(url)}\n")
        for words in (["--shared-state", url], ["--config", tmp_path / "a.toml"]):
            result = show(*words)
            assert result.exit_code == 2
            assert not re.search("sec ?ret@", result.output)


def test_missing_jobs_root_is_shown_as_not_set() -> None:
    result = show()
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "# jobs-root is not set")


def test_invalid_value_is_exit_code_2() -> None:
    assert show("--port", "x").exit_code == 2
    assert show("--config", "/nonexistent").exit_code == 2


def test_default_of_the_service_is_shown() -> None:
    assert shown()["state-dir"]["value"] == str(Settings(Path("/")).state_dir)


def test_switch_has_no_value_on_the_command_line_and_one_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "jobsvc.toml"
    file.write_text("no-ui = true\n")
    assert shown("--no-ui", "jobs")["no-ui"] == {"value": True, "source": "flag --no-ui"}
    assert shown("jobs", "--no-ui")["jobs-root"]["value"] == str(Path.cwd() / "jobs")
    assert shown("jobs", "--config", file)["no-ui"] == {"value": True, "source": f"{file}, key no-ui"}
    words = {"true": True, "1": True, "Yes": True, "off": False, "0": False, "false": False}
    for text, value in words.items():
        options = shown("jobs", "--config", file, JOBSVC_NO_UI=text)
        assert options["no-ui"] == {"value": value, "source": "environment variable JOBSVC_NO_UI"}
    assert shown("jobs", JOBSVC_NO_UI="")["no-ui"] == {"value": False, "source": "default"}


def test_switch_with_another_word_is_an_error_that_names_its_source(tmp_path: Path) -> None:
    result = show("jobs", JOBSVC_NO_UI="maybe")
    assert result.exit_code == 2
    assert (
        "no-ui: 'maybe' is neither true nor false (from the environment variable JOBSVC_NO_UI)"
        in result.output
    )
    file = tmp_path / "jobsvc.toml"
    file.write_text("no-ui = 'maybe'\n")
    assert "no-ui: 'maybe' is neither true nor false" in show("jobs", "--config", file).output
    file.write_text("port = true\n")  # only a switch is true or false
    assert "port: 'True' is not a string or a number" in show("jobs", "--config", file).output
