from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from jobsvc.domain.job import SYNONYMS
from jobsvc.settings import OPTIONS, Option, Settings

FIXED = """
--host --port --state-dir --secrets-dir --instance --shared-state --shared-state-prefix --output-root
--status-alias --watch --poll-interval --max-age --stalled-after
--limit-status --limit-list --limit-events --limit-logs --limit-download --limit-files
--limit-auth-failures
--max-downloads --max-downloads-per-token --max-streams --max-streams-per-token
--max-connections --trusted-proxy --public-url --cors-origin --max-link-age --no-ui --header-timeout
--send-timeout --download-rate --shutdown-grace --config JOBS_ROOT
"""


def option(name: str) -> Option:
    return next(option for option in OPTIONS if option.name == name)


def test_options_are_the_documented_ones() -> None:
    assert {option.flag for option in OPTIONS} == set(FIXED.split())


def test_every_setting_has_an_option() -> None:
    assert [option.field for option in OPTIONS] == [field.name for field in fields(Settings)]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_defaults_are_valid(option: Option, tmp_path: Path) -> None:
    if not option.default or option.name in {"state-dir", "instance"}:
        return
    assert option.spec.parse(option.default) == getattr(Settings(tmp_path), option.field)


def test_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    assert (settings.host, settings.port, settings.watch) == ("127.0.0.1", 8080, "auto")
    assert (settings.limit_status, settings.limit_list, settings.limit_logs) == (
        "600/minute",
        "120/minute",
        "120/minute",
    )
    assert (settings.limit_download, settings.limit_files) == ("60/minute", "1200/minute")
    assert settings.limit_auth_failures == "20/minute"
    assert (settings.max_downloads, settings.max_downloads_per_token) == (256, 16)
    assert (settings.max_age, settings.poll_interval, settings.max_link_age) == (1, 1, 86_400)
    assert (settings.send_timeout, settings.download_rate, settings.shutdown_grace) == (60, 0, 30)
    assert (settings.max_connections, settings.header_timeout, settings.no_ui) == (0, 15, False)
    assert (settings.output_roots, settings.trusted_proxies, settings.config) == ((), (), None)
    assert settings.status_aliases == SYNONYMS
    assert settings.state_dir == Path.home() / ".local/state/jobsvc"


def test_names_follow_one_rule() -> None:
    named = option("max-downloads-per-token")
    assert (named.flag, named.variable) == ("--max-downloads-per-token", "JOBSVC_MAX_DOWNLOADS_PER_TOKEN")


def test_only_repeatable_options_are_split() -> None:
    assert option("output-root").split("/a b:/c") == ["/a b", "/c"]
    assert option("trusted-proxy").split("10.0.0.0/8, ::1\n192.0.2.1") == ["10.0.0.0/8", "::1", "192.0.2.1"]
    assert option("cors-origin").split("https://a.b, http://c:1") == ["https://a.b", "http://c:1"]
    assert option("status-alias").split("paused=queued,held=queued") == ["paused=queued", "held=queued"]
    assert [option.name for option in OPTIONS if option.repeatable] == [
        "output-root",
        "status-alias",
        "trusted-proxy",
        "cors-origin",
    ]


def test_settings_are_immutable(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    with pytest.raises(FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]  # what the test is about
    with pytest.raises(TypeError):
        settings.status_aliases["x"] = SYNONYMS["done"]  # type: ignore[index]  # likewise
