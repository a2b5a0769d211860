"""Define where requests go: the host, port and path prefix of the base URL, or a proxy."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from jobsvc.client.errors import BadConfiguration
from jobsvc.client.transport.failures import Peer

_PORTS: Final = {"http": 80, "https": 443}
_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy")


class Endpoint(NamedTuple):
    """The service, as its base URL names it."""

    tls: bool
    host: str
    """A name or an address; IPv6 without brackets."""
    port: int
    path_prefix: str = ""
    """Comes before `/api`; starts with a slash unless it is empty."""

    @property
    def address(self) -> str:
        """Return `host:port`; IPv6 in brackets."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def peer(self) -> Peer:
        """Return how messages call it."""
        return Peer(self.address)

    @property
    def host_header(self) -> str:
        """Return the value of the Host header; without the scheme's default port (RFC 9110, 7.2)."""
        default_port = _PORTS["https" if self.tls else "http"]
        return _bracketed(self.host) if self.port == default_port else self.address


class Proxy(NamedTuple):
    """A proxy that is reached over plain TCP."""

    host: str
    port: int
    credentials: bytes | None
    """`user:password`, from the proxy's URL."""

    @property
    def peer(self) -> Peer:
        """Return how messages call it."""
        return Peer(f"{_bracketed(self.host)}:{self.port}", is_proxy=True)

    @property
    def header_lines(self) -> str:
        """Return the header that identifies the user to the proxy, or nothing."""
        return "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())

    @property
    def headers(self) -> dict[str, str]:
        """Return the header that identifies the user to the proxy, or none."""
        if self.credentials is None:
            return {}
        from base64 import b64encode  # noqa: PLC0415 - only for proxies with a password

        return {"Proxy-Authorization": f"Basic {b64encode(self.credentials).decode()}"}


def parse_base_url(base_url: str) -> Endpoint:
    """Split a base URL that `profile.resolve` has checked."""
    parts = urlsplit(base_url)
    tls = parts.scheme == "https"
    return Endpoint(tls, parts.hostname or "", parts.port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def find_proxy(endpoint: Endpoint) -> Proxy | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name; never one for this host itself.

    Raises BadConfiguration if it is not an HTTP proxy.
    """
    if _is_loopback(endpoint.host) or not any(name.lower() in _PROXY_VARIABLES for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - 30 ms, and most need no proxy

    url = getproxies().get("https" if endpoint.tls else "http")
    if not url or proxy_bypass(endpoint.address):
        return None
    return _parse_proxy(url, "HTTPS_PROXY" if endpoint.tls else "HTTP_PROXY")


def _parse_proxy(url: str, variable: str) -> Proxy:
    with suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or _PORTS["http"]
        if parts.scheme == "http" and parts.hostname:
            return Proxy(parts.hostname, port, _credentials(parts))
    # The value may contain a password.
    raise BadConfiguration(f"{variable} is not the URL of an HTTP proxy, such as http://proxy:3128.")


def _credentials(parts: SplitResult) -> bytes | None:
    if parts.username is None:
        return None
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or host == "::1" or host.startswith("127.")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
