from __future__ import annotations

import stat
from pathlib import Path

import pytest

from jobsvc.domain.job import SYNONYMS, Status
from jobsvc.settings import OPTIONS, ConfiguredValue, Settings, SettingsError, load, resolve

WRONG = {
    "host": "a b",
    "port": "nonsense",
    "state-dir": "/proc/self/x",
    "secrets-dir": "/missing/secrets",
    "output-root": "/missing/folder",
    "status-alias": "paused",
    "watch": "sometimes",
    "poll-interval": "0",
    "max-age": "-1",
    "limit-status": "600",
    "limit-list": "none",
    "limit-events": "10",
    "limit-logs": "1/year",
    "limit-download": "0/minute",
    "limit-files": "1200",
    "limit-auth-failures": "20",
    "max-downloads": "0",
    "max-downloads-per-token": "many",
    "max-streams": "0",
    "max-streams-per-token": "-1",
    "shared-state": "redis.example.com",
    "shared-state-prefix": "{jobs}",
    "instance": "a b",
    "trusted-proxy": "10.0.0.1/8",
    "public-url": "render.example.com",
    "cors-origin": "*",
    "max-link-age": "0",
    "no-ui": "never",
    "max-connections": "-1",
    "header-timeout": "0",
    "send-timeout": "0.5",
    "download-rate": "fast",
    "shutdown-grace": "1h",
    "jobs-root": "/missing/jobs",
    "config": "/missing/file.toml",
    "stalled-after": "soon",
}


@pytest.fixture
def base(tmp_path: Path) -> dict[str, ConfiguredValue]:
    (tmp_path / "jobs").mkdir()
    return {
        "jobs_root": ConfiguredValue(str(tmp_path / "jobs"), "the argument JOBS_ROOT"),
        "state_dir": ConfiguredValue(str(tmp_path / "state"), "the flag --state-dir"),
    }


def written(folder: Path, text: str) -> dict[str, ConfiguredValue]:
    file = folder / "jobsvc.toml"
    file.write_text(text)
    return {"config": ConfiguredValue(str(file), "the flag --config")}


def refusal(given: dict[str, ConfiguredValue]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(given)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_option_has_an_invalid_value_in_the_table() -> None:
    assert set(WRONG) == {option.name for option in OPTIONS}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["the flag", "the environment variable"])
def test_error_names_option_value_and_origin(name: str, kind: str, base: dict[str, ConfiguredValue]) -> None:
    option = next(option for option in OPTIONS if option.name == name)
    origin = f"{kind} {option.variable}"
    value = (WRONG[name],) if option.repeatable else WRONG[name]
    message = refusal({**base, option.field: ConfiguredValue(value, origin)})
    assert message.startswith(f"{name}: {WRONG[name]!r} ")
    assert message.endswith(f" (from {origin})")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2",
        "redis://acl:hunter2@host:70000000/0",
        "redis://acl:hunter2@host:65536/0",
        "redis://acl:hunter2@host:0",
        "redis://acl:hunter2 x@host",
        "redis://host/0?password=hunter2#",
        "https://acl:hunter2@host",
    ],
)
def test_error_of_the_url_of_redis_shows_no_password(
    url: str, base: dict[str, ConfiguredValue], tmp_path: Path
) -> None:
    flag = {"shared_state": ConfiguredValue(url, "the flag --shared-state")}
    twice = f'shared-state = "{url}"\nshared_state = "{url}"\n'
    for given in (flag, written(tmp_path, f'shared-state = "{url}"'), written(tmp_path, twice)):
        message = refusal({**base, **given})
        assert message.startswith("shared-state: is ")
        assert "hunter2" not in message


@pytest.mark.parametrize("name", [name for name in WRONG if name != "config"])
def test_error_of_the_config_file_names_file_and_key(
    name: str, base: dict[str, ConfiguredValue], tmp_path: Path
) -> None:
    config = written(tmp_path, f'{name} = "{WRONG[name]}"\n')
    mine = next(option.field for option in OPTIONS if option.name == name)
    message = refusal({**{field: given for field, given in base.items() if field != mine}, **config})
    assert message.startswith(f"{name}: {WRONG[name]!r} ")
    assert message.endswith(f" (from {tmp_path}/jobsvc.toml, key {name})")


def test_config_file_precedes_only_the_default(base: dict[str, ConfiguredValue], tmp_path: Path) -> None:
    config = written(tmp_path, 'port = 1000\nmax-age = 7.5\nlimit_list = "1/day"\n')
    settings = load({**base, **config, "port": ConfiguredValue("2000", "the flag --port")})
    assert (settings.port, settings.max_age, settings.limit_list, settings.send_timeout) == (
        2000,
        7.5,
        "1/day",
        60,
    )
    assert settings.config == tmp_path / "jobsvc.toml"


def test_several_values_may_be_written_as_toml_allows(
    base: dict[str, ConfiguredValue], tmp_path: Path
) -> None:
    (tmp_path / "outputs").mkdir()
    config = written(
        tmp_path,
        'output-root = "outputs"\ntrusted-proxy = ["10.0.0.0/8", "::1"]\n[status_alias]\npaused = "queued"\n',
    )
    settings = load({**base, **config})
    assert settings.output_roots == (tmp_path / "outputs",)
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert settings.status_aliases["paused"] is Status.QUEUED


def test_relative_path_is_relative_to_the_config_file(
    base: dict[str, ConfiguredValue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    del base["state_dir"]
    assert load({**base, **written(tmp_path, 'state-dir = "own"\n')}).state_dir == tmp_path / "own"


def test_tilde_in_the_config_file_is_expanded(base: dict[str, ConfiguredValue], tmp_path: Path) -> None:
    del base["state_dir"]
    assert load({**base, **written(tmp_path, 'state-dir = "~/own"\n')}).state_dir == tmp_path / "home/own"


def test_alias_extends_the_synonyms_and_the_last_one_counts(base: dict[str, ConfiguredValue]) -> None:
    aliases = ConfiguredValue(("Paused=queued", "done=failed", "paused=canceled"), "the flag --status-alias")
    found = load({**base, "status_aliases": aliases}).status_aliases
    expected = {**SYNONYMS, "paused": Status.CANCELED, "done": Status.FAILED}
    assert found == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_agee = 1", "max_agee: is not an option of jobsvc; did you mean max-age? (from "),
        ("MAX-AGE = 1", "MAX-AGE: is not an option of jobsvc; did you mean max-age? (from "),
        ("zzz = 1", "zzz: is not an option of jobsvc (from "),
        ("[server]\nport = 1", "server: is not an option of jobsvc"),
        ('config = "other.toml"', "config: is not an option of jobsvc"),
        ("max-age = 1\nmax_age = 2", "max-age: '2' is given twice"),
        ("port = true", "port: 'True' is not a string or a number"),
        ("port = [1]", "port: '[1]' is not a string or a number"),
        ("max-age = 1979-05-27", "max-age: '1979-05-27' is not a string or a number"),
        ("output-root = [[]]", "output-root: '[]' is not a string, a number or a list"),
        ("max-age = nan", "max-age: 'nan' is not a number of seconds"),
        ("port = ", "is not valid TOML: "),
        ("port = 1\nport = 2", "is not valid TOML: "),
        ("x = " + "[" * 100_000, "is not valid TOML: "),
        ("#" * (1 << 20), "is larger than 1 MiB"),
    ],
)
def test_error_in_the_config_file_has_its_location(
    text: str, told: str, base: dict[str, ConfiguredValue], tmp_path: Path
) -> None:
    message = refusal({**base, **written(tmp_path, text + "\n")})
    assert told in message
    assert "jobsvc.toml" in message


def test_config_file_that_is_not_utf_8_is_refused(base: dict[str, ConfiguredValue], tmp_path: Path) -> None:
    config = written(tmp_path, "")
    (tmp_path / "jobsvc.toml").write_bytes(b"\xff\xfe")
    assert "is not valid TOML: " in refusal({**base, **config})


def test_jobs_root_is_required() -> None:
    assert refusal({}).startswith("jobs-root: missing; set the directory that contains the job directories")


def test_state_directory_is_required_without_a_home(
    base: dict[str, ConfiguredValue], monkeypatch: pytest.MonkeyPatch
) -> None:
    del base["state_dir"]
    monkeypatch.setenv("JOBSVC_STATE_DIR", "~nobody-of-this-name")
    assert refusal(base).startswith("state-dir: is required")


def test_nothing_is_created_if_a_setting_is_invalid(base: dict[str, ConfiguredValue], tmp_path: Path) -> None:
    refusal({**base, "port": ConfiguredValue("x", "the flag --port")})
    state = ConfiguredValue(str(tmp_path / "jobs" / "state"), "the flag --state-dir")
    assert "is inside the jobs root" in refusal({**base, "state_dir": state})
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "jobs" / "state").exists()


def test_valid_start_creates_the_state_directory(base: dict[str, ConfiguredValue], tmp_path: Path) -> None:
    settings = load(base)
    assert settings == Settings(tmp_path / "jobs", state_dir=tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_resolving_touches_no_directory(tmp_path: Path) -> None:
    given = {
        "jobs_root": ConfiguredValue("/missing", "the argument JOBS_ROOT"),
        "port": ConfiguredValue("1", "the flag --port"),
    }
    assert resolve(given) == {"jobs_root": Path("/missing"), "port": 1}


@pytest.mark.parametrize("place", ["jobs", "jobs/secrets", "outputs/secrets", "."])
def test_secrets_directory_is_separate_from_served_directories(
    place: str, base: dict[str, ConfiguredValue], tmp_path: Path
) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    given = {"secrets_dir": ConfiguredValue(str(tmp_path / place), "the flag --secrets-dir")}
    if place.startswith("outputs"):
        given["output_roots"] = ConfiguredValue((str(tmp_path / "outputs"),), "the flag --output-root")
    message = refusal({**base, **given})
    assert message.startswith(f"secrets-dir: '{(tmp_path / place).absolute()}' ")
    assert message.endswith("(from the flag --secrets-dir)")
    assert not (tmp_path / "state").exists()
