"""jobsvc healthcheck: ask the service on this host whether it is ready; for a container's HEALTHCHECK.

It runs every few seconds beside the service. So it imports little, and reads only host and port of the
settings: the whole of them would take four times as long.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

TIMEOUT_S: Final = 5.0
MAX_RESPONSE_BYTES: Final = 64 * 1024
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


@click.command
@click.option("--url", metavar="URL", help="URL of the service [http://HOST:PORT of its settings]")
@click.option("--live", is_flag=True, help="Request /healthz, which says only that it runs, not /readyz.")
@click.option("--config", metavar="FILE.toml", envvar="JOBSVC_CONFIG", help="Config file of the service.")
def healthcheck(url: str | None, *, live: bool, config: str | None) -> None:
    """Ask the service on this host whether it is ready.

    Host and port are those of the service: JOBSVC_HOST and JOBSVC_PORT, or host and port in the config
    file. If it serves sockets of systemd, give the --url.

    Exit codes: 0 if it is ready; 1 if it is not, or does not respond within 5 seconds; 2 for wrong use.
    """
    url = (url or _url_of(config)) + ("/healthz" if live else "/readyz")
    try:
        status, body = _get(url)
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"{url}: {_reason(exc)}") from exc
    if status != 200:  # noqa: PLR2004 - OK; http.HTTPStatus takes a while to import
        raise click.ClickException(f"{url}: {status} {_detail(body)}")
    click.echo(f"{url}: {body.decode(errors='replace').splitlines()[0] if body else status}")


def _url_of(config: str | None) -> str:
    """Return the URL at which the service of these settings can be reached from this host."""
    host, port = _configured(config)
    if not _PORT.fullmatch(port) or port == "0":
        raise click.UsageError(f"The port is {port[:20]!r}; give the --url of the service.")
    try:
        address = ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - IPv4
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _configured(config: str | None) -> tuple[str, str]:
    try:
        in_file = tomllib.loads(Path(config).expanduser().read_text("utf-8")) if config else {}
    except (OSError, ValueError) as exc:
        raise click.UsageError(f"{config}: {getattr(exc, 'strerror', None) or exc}") from exc
    port = os.environ.get("JOBSVC_PORT", "")
    if port.startswith(("tcp://", "udp://")):  # set by Kubernetes for a service called jobsvc
        port = ""
    return (
        os.environ.get("JOBSVC_HOST") or str(in_file.get("host", DEFAULT_HOST)),
        port or str(in_file.get("port", DEFAULT_PORT)),
    )


def _get(url: str) -> tuple[int, bytes]:
    """Return status and body of the response; raises OSError, and ValueError if it is not valid."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise click.UsageError(f"{url[:200]!r} is not an http or https URL.")
    ends_at = time.monotonic() + TIMEOUT_S
    default = 80 if parts.scheme == "http" else 443
    connection = socket.create_connection((parts.hostname, parts.port or default), TIMEOUT_S)
    with connection:
        if parts.scheme == "https":
            import ssl  # noqa: PLC0415 - takes 15 ms

            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
        head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        response = _read(connection, ends_at)
    status = _STATUS_LINE.match(response)
    if status is None:
        raise ValueError("the response is not HTTP")
    return int(status[1]), response.partition(b"\r\n\r\n")[2]


def _read(connection: socket.socket, ends_at: float) -> bytes:
    response = b""
    while len(response) < MAX_RESPONSE_BYTES:
        remaining = ends_at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        received = connection.recv(MAX_RESPONSE_BYTES)
        if not received:
            break
        response += received
    return response


def _detail(body: bytes) -> str:
    """Return the detail of a problem document; nothing if it is something else."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, TypeError, KeyError):
        return ""


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return f"no response within {TIMEOUT_S:g} s"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
