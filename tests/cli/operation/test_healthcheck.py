from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.cli.operation import healthcheck as command
from jobsvc.cli.operation.healthcheck import DEFAULT_HOST, DEFAULT_PORT
from jobsvc.settings import Settings
from tests.conftest import StartProcess
from tests.eventually import wait_until

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n"
UNREADY = b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"detail": "The first index is not complete."}'


def check(*words: str, **variables: str) -> Result:
    none = dict.fromkeys(("JOBSVC_HOST", "JOBSVC_PORT", "JOBSVC_CONFIG"))
    return CliRunner().invoke(main, ["healthcheck", *words], env={**none, **variables})


@contextmanager
def responding(response: bytes, host: str = "127.0.0.1") -> Iterator[tuple[int, list[bytes]]]:
    """Send the response to one request; yield the port, and a list to which the request is added."""
    family, received = (socket.AF_INET6 if ":" in host else socket.AF_INET), []
    with socket.create_server((host, 0), family=family) as server:

        def respond() -> None:
            connection, _ = server.accept()
            with connection:
                received.append(connection.recv(10_000))
                connection.sendall(response)

        thread = threading.Thread(target=respond, daemon=True)
        thread.start()
        yield server.getsockname()[1], received
        thread.join(5)


def test_ready_service_is_exit_code_0(start_process: StartProcess) -> None:
    service = start_process()
    wait_until(lambda: check(JOBSVC_PORT=str(service.port)).exit_code == 0)
    result = check("--live", JOBSVC_PORT=str(service.port))
    assert result.stdout == f"http://127.0.0.1:{service.port}/healthz: ok\n"


def test_unready_service_is_exit_code_1_with_its_reason() -> None:
    with responding(UNREADY) as (port, received):
        result = check(JOBSVC_PORT=str(port))
    assert result.exit_code == 1
    url = f"http://127.0.0.1:{port}/readyz"
    assert result.stderr == f"Error: {url}: 503 The first index is not complete.\n"
    assert received[0].startswith(b"GET /readyz HTTP/1.1\r\n")


def test_service_that_does_not_listen_is_exit_code_1() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        result = check(JOBSVC_PORT=str(bound.getsockname()[1]))
    assert result.exit_code == 1
    assert result.stderr.endswith("/readyz: Connection refused\n")


def test_service_that_does_not_respond_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = check(JOBSVC_PORT=str(server.getsockname()[1]))
    assert result.exit_code == 1
    assert result.stderr.endswith("/readyz: no response within 0.2 s\n")


def test_response_that_is_not_http_is_exit_code_1() -> None:
    with responding(b"SSH-2.0-OpenSSH_9.2\r\n") as (port, _):
        result = check(JOBSVC_PORT=str(port))
    assert (result.exit_code, "the response is not HTTP" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("host", "reached", "shown"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),  # noqa: S104 - a setting; nothing is bound to it
        ("::", "::1", "[::1]"),
        ("localhost", "127.0.0.1", "localhost"),
    ],
)
def test_address_of_the_service_is_reached_from_this_host(host: str, reached: str, shown: str) -> None:
    with responding(READY, reached) as (port, _):
        result = check(JOBSVC_HOST=host, JOBSVC_PORT=str(port))
    assert result.stdout == f"http://{shown}:{port}/readyz: ready\n"


def test_address_is_taken_from_the_config_file_and_the_environment_precedes_it(tmp_path: Path) -> None:
    file = tmp_path / "jobsvc.toml"
    with responding(READY) as (port, _):
        file.write_text(f'host = "127.0.0.1"\nport = {port}\nmax-age = 1\n')
        assert check("--config", str(file)).exit_code == 0
    with responding(READY) as (port, _):
        assert check(JOBSVC_CONFIG=str(file), JOBSVC_PORT=str(port)).exit_code == 0


def test_url_precedes_the_settings() -> None:
    with responding(READY) as (port, received):
        assert check("--url", f"http://127.0.0.1:{port}/farm", JOBSVC_PORT="1").exit_code == 0
    assert received[0].startswith(b"GET /farm/readyz HTTP/1.1\r\n")


def test_port_that_kubernetes_sets_is_ignored(tmp_path: Path) -> None:
    with responding(READY) as (port, _):
        file = tmp_path / "jobsvc.toml"
        file.write_text(f"port = {port}\n")
        assert check("--config", str(file), JOBSVC_PORT="tcp://10.0.0.1:8080").exit_code == 0


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["--url", "localhost:8080"], {}),
        (["--config", "/nonexistent/jobsvc.toml"], {}),
        ([], {"JOBSVC_PORT": "0"}),
        ([], {"JOBSVC_PORT": "http"}),
    ],
)
def test_wrong_use_is_exit_code_2(words: list[str], variables: dict[str, str]) -> None:
    assert check(*words, **variables).exit_code == 2


def test_defaults_are_those_of_the_service() -> None:
    defaults = {field.name: field.default for field in fields(Settings)}
    assert (defaults["host"], defaults["port"]) == (DEFAULT_HOST, DEFAULT_PORT)
