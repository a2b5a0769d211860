from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from jobsvc.client.errors import BadConfiguration
from jobsvc.client.profile import Profile, load_all, profiles_path, remove, resolve, save

URL = "https://render.example.com"
OTHER_URL = "https://other.example.com"
TOKEN = "token-of-the-test"  # noqa: S105 - not a password
OTHER_TOKEN = "another-token"  # noqa: S105 - not a password


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remove all variables, and let profiles be in a new directory."""
    for name in ("JOBSVC_URL", "JOBSVC_TOKEN", "JOBSVC_TOKEN_FILE", "JOBSVC_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def saved_file() -> Path:
    path = profiles_path()
    assert path is not None
    return path


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_URL", OTHER_URL)
    monkeypatch.setenv("JOBSVC_TOKEN", OTHER_TOKEN)
    settings = resolve(URL, TOKEN, timeout=5, retries=2, ca_file="ca.pem")
    assert settings == (URL, TOKEN, 5, 2, "ca.pem", None)


def test_valid_traceparent_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setenv("TRACEPARENT", traceparent)
    assert resolve(URL, TOKEN).headers["traceparent"] == traceparent
    monkeypatch.setenv("TRACEPARENT", f"{traceparent}\r\nX: y")
    assert "traceparent" not in resolve(URL, TOKEN).headers


def test_environment_comes_before_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    save("default", OTHER_URL, OTHER_TOKEN)
    monkeypatch.setenv("JOBSVC_URL", URL)
    monkeypatch.setenv("JOBSVC_TOKEN", TOKEN)
    assert resolve()[:2] == (URL, TOKEN)


def test_profile_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    save("staging", URL, TOKEN)
    monkeypatch.setenv("JOBSVC_URL", OTHER_URL)
    monkeypatch.setenv("JOBSVC_TOKEN", OTHER_TOKEN)
    assert resolve(profile="staging")[:2] == (URL, TOKEN)


def test_default_profile_is_used_if_nothing_else_is_given() -> None:
    save("default", URL, TOKEN)
    assert resolve()[:2] == (URL, TOKEN)


def test_variable_names_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    save("default", OTHER_URL, OTHER_TOKEN)
    save("staging", URL, TOKEN)
    monkeypatch.setenv("JOBSVC_PROFILE", "staging")
    assert resolve()[:2] == (URL, TOKEN)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_first_line_of_the_token_file_is_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    file = tmp_path / "token"
    file.write_text(f" {TOKEN} \r\nsecond line\n", encoding)
    monkeypatch.setenv("JOBSVC_TOKEN_FILE", str(file))
    assert resolve(URL).token == TOKEN


def test_token_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(BadConfiguration, match=r"JOBSVC_TOKEN_FILE: .*/missing cannot be read: No such file"):
        resolve(URL)


def test_empty_variables_count_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    save("default", URL, TOKEN)
    for name in ("JOBSVC_URL", "JOBSVC_TOKEN", "JOBSVC_TOKEN_FILE", "JOBSVC_PROFILE"):
        monkeypatch.setenv(name, "")
    assert resolve()[:2] == (URL, TOKEN)


def test_token_of_a_profile_is_not_sent_to_another_url(monkeypatch: pytest.MonkeyPatch) -> None:
    save("default", URL, TOKEN)
    message = f"no token for {OTHER_URL}: the token of the profile 'default' is for {URL}"
    with pytest.raises(BadConfiguration, match=message) as raised:
        resolve(OTHER_URL)
    assert TOKEN not in str(raised.value)
    monkeypatch.setenv("JOBSVC_URL", OTHER_URL)
    with pytest.raises(BadConfiguration, match=message):
        resolve()


def test_token_of_a_profile_is_sent_to_its_own_url_in_another_notation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save("default", URL, TOKEN)
    monkeypatch.setenv("JOBSVC_URL", "HTTPS://Render.Example.com/api/")
    assert resolve()[:2] == (URL, TOKEN)


def test_token_of_the_environment_is_not_sent_to_the_url_of_a_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save("default", URL, TOKEN)
    monkeypatch.setenv("JOBSVC_TOKEN", OTHER_TOKEN)
    with pytest.raises(BadConfiguration, match="unset JOBSVC_TOKEN") as raised:
        resolve()
    assert OTHER_TOKEN not in str(raised.value)


def test_token_argument_is_sent_to_the_url_of_the_profile() -> None:
    save("default", URL, TOKEN)
    assert resolve(token=OTHER_TOKEN)[:2] == (URL, OTHER_TOKEN)


def test_missing_configuration_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadConfiguration, match="run `jobsvc login URL`, or set JOBSVC_URL"):
        resolve()
    with pytest.raises(BadConfiguration, match=f"no token for {URL}: set JOBSVC_TOKEN"):
        resolve(URL)
    with pytest.raises(BadConfiguration, match="set JOBSVC_URL"):
        resolve(token=TOKEN)
    save("one", URL, TOKEN)
    with pytest.raises(BadConfiguration, match="no profile 'two'; saved profiles: one"):
        resolve(profile="two")
    monkeypatch.setenv("JOBSVC_PROFILE", "three")
    with pytest.raises(BadConfiguration, match="no profile 'three'"):
        resolve()


@pytest.mark.parametrize(("timeout", "retries"), [(0, 5), (-1, 5), (float("nan"), 5), (1e9, 5), (30, -1)])
def test_impossible_timeout_and_retries_are_refused(timeout: float, retries: int) -> None:
    with pytest.raises(BadConfiguration, match="timeout must be above 0"):
        resolve(URL, TOKEN, timeout=timeout, retries=retries)


def test_profiles_are_saved_listed_and_removed() -> None:
    assert load_all() == {}
    assert save("a", f"{URL}/api", f" {TOKEN}\n") == saved_file()
    save("b", OTHER_URL, OTHER_TOKEN)
    save("b", f"{OTHER_URL}/farm", OTHER_TOKEN)
    assert load_all() == {"a": Profile(URL, TOKEN), "b": Profile(f"{OTHER_URL}/farm", OTHER_TOKEN)}
    assert remove("a")
    assert not remove("a")
    assert list(load_all()) == ["b"]
    assert list(saved_file().parent.iterdir()) == [saved_file()]


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 65, "ä"])
def test_name_of_a_profile_is_checked(name: str) -> None:
    with pytest.raises(BadConfiguration, match="not a name for a profile"):
        save(name, URL, TOKEN)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_the_user_can_read_the_profiles() -> None:
    save("default", URL, TOKEN)
    assert stat.S_IMODE(saved_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(saved_file().parent.stat().st_mode) == 0o700
    for mode in (0o640, 0o604, 0o620):
        saved_file().chmod(mode)
        with pytest.raises(BadConfiguration, match=r"Other users can access .*: run `chmod 600"):
            resolve()


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"profiles": []}', "\xff", '{"profiles": null}', "[" * 10_000]
)
def test_damaged_file_is_named(content: str) -> None:
    save("default", URL, TOKEN)
    saved_file().write_bytes(content.encode("latin-1"))
    with pytest.raises(BadConfiguration, match=r"profiles\.json is not a file of profiles"):
        resolve()


@pytest.mark.parametrize(
    "item", [None, {}, {"url": URL}, {"url": 1, "token": TOKEN}, {"url": URL, "token": []}]
)
def test_damaged_profile_is_an_error(item: object) -> None:
    save("default", URL, TOKEN)
    saved_file().write_text(json.dumps({"profiles": {"default": item}}))
    with pytest.raises(BadConfiguration, match="log in again"):
        resolve()


def test_file_that_cannot_be_written_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    save("default", URL, TOKEN)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(BadConfiguration, match="cannot be written: No space left"):
        save("other", OTHER_URL, OTHER_TOKEN)
    assert list(load_all()) == ["default"]
    assert list(saved_file().parent.iterdir()) == [saved_file()]


def test_directory_in_place_of_the_file_is_an_error() -> None:
    saved_file().mkdir(parents=True)
    with pytest.raises(BadConfiguration, match="cannot be read: Is a directory"):
        resolve()


def test_without_platformdirs_there_are_no_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    save("default", URL, TOKEN)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert load_all() == {}
    assert not remove("default")
    with pytest.raises(BadConfiguration, match="No service is configured"):
        resolve()
    with pytest.raises(BadConfiguration, match="package platformdirs"):
        save("default", URL, TOKEN)
    assert resolve(URL, TOKEN)[:2] == (URL, TOKEN)


def test_representations_omit_the_token() -> None:
    save("default", URL, TOKEN)
    assert TOKEN not in repr(load_all())
    assert TOKEN not in repr(resolve())
