from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.transport.http_transport import HttpTransport
from tests.clients.scripted_server import ScriptedServer, Step
from tests.programs.certificates import create_certificate

SECRET = "secret-of-the-test"  # noqa: S105 - not a password
REMOTE = "render.test"
"""A host that only the proxy of a test knows."""


class Pair:
    """A scripted server and a transport to it."""

    def __init__(self, server: ScriptedServer, transport: HttpTransport) -> None:
        self.server = server
        self.transport = transport


Connect = Callable[..., Pair]
"""Starts a server with scripts, and creates a transport with settings."""


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def start(*scripts: list[Step], **settings: Any) -> Pair:
            server = stack.enter_context(ScriptedServer(*scripts))
            settings = {"base_url": f"http://127.0.0.1:{server.port}", "timeout": 10.0, **settings}
            transport = HttpTransport(ConnectionSettings(token=SECRET, **settings))
            stack.callback(transport.close)
            return Pair(server, transport)

        yield start


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with `certificate`, and `pem` with its key too; tests that use it need openssl."""
    folder = tmp_path_factory.mktemp("certificates")
    create_certificate(folder, f"DNS:localhost,DNS:{REMOTE}")
    return folder


@pytest.fixture
def tls(certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "pem")
    return context
