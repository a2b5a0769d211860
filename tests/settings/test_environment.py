from __future__ import annotations

import pytest

from jobsvc.settings import OPTIONS, is_service_link, unknown_variables


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("JOBSVC_MAXAGE", "JOBSVC_MAX_AGE"),
        ("JOBSVC_PROT", "JOBSVC_PORT"),
        ("JOBSVC_JOB_ROOT", "JOBSVC_JOBS_ROOT"),
        ("JOBSVC_STATEDIR", "JOBSVC_STATE_DIR"),
        ("JOBSVC_TRUSTED_PROXIES", "JOBSVC_TRUSTED_PROXY"),
        ("JOBSVC_TOKN", "JOBSVC_TOKEN"),
        ("JOBSVC_port", "JOBSVC_PORT"),
        ("JOBSVC_QQQQQQQQQQ", None),
        ("JOBSVC_", None),
    ],
)
def test_misspelled_variable_is_reported_with_a_suggestion(name: str, close: str | None) -> None:
    assert list(unknown_variables({name: "1", "PATH": "/bin"})) == [(name, close)]


def test_known_variables_are_not_unknown() -> None:
    client = ("URL", "TOKEN", "TOKEN_FILE", "PROFILE", "PROGRESS", "OUTPUT", "JOB_DIR", "JOB_ID", "OWNER")
    names = [option.variable for option in OPTIONS] + [f"JOBSVC_{name}" for name in (*client, "FAST_PATH")]
    assert list(unknown_variables(dict.fromkeys(names, ""))) == []


# As Kubernetes sets them for services jobsvc and jobsvc-web, and Docker for a linked container.
LINKS = {
    "JOBSVC_SERVICE_HOST": "10.0.0.1",
    "JOBSVC_SERVICE_PORT": "8080",
    "JOBSVC_SERVICE_PORT_HTTP": "8080",
    "JOBSVC_PORT": "tcp://10.0.0.1:8080",
    "JOBSVC_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "JOBSVC_PORT_8080_TCP_PROTO": "tcp",
    "JOBSVC_PORT_8080_TCP_PORT": "8080",
    "JOBSVC_PORT_8080_TCP_ADDR": "10.0.0.1",
    "JOBSVC_PORT_53_UDP": "udp://10.0.0.1:53",
    "JOBSVC_WEB_SERVICE_HOST": "10.0.0.2",
    "JOBSVC_WEB_SERVICE_PORT": "80",
    "JOBSVC_WEB_PORT": "tcp://[fd00::1]:80",
    "JOBSVC_WEB_PORT_80_TCP_ADDR": "10.0.0.2",
    "JOBSVC_NAME": "/web/jobsvc",
    "JOBSVC_ENV_PATH": "/bin",
}


def test_variables_of_an_orchestrator_are_not_unknown() -> None:
    assert list(unknown_variables(LINKS)) == []


@pytest.mark.parametrize("name", LINKS)
def test_variables_of_an_orchestrator_are_distinguished_from_options(name: str) -> None:
    assert is_service_link(name, LINKS[name])


@pytest.mark.parametrize("value", ["8080", "", "tcp://", "tcp:10.0.0.1", "http://10.0.0.1:80"])
def test_port_number_is_the_option(value: str) -> None:
    assert not is_service_link("JOBSVC_PORT", value)


def test_url_is_a_service_link_only_in_a_port_variable() -> None:
    assert not is_service_link("JOBSVC_HOST", "tcp://10.0.0.1:8080")
    assert not is_service_link("PORT", "tcp://10.0.0.1:8080")
