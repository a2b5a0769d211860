"""Addresses in answers.

They begin with the public URL of the service where that is known. Otherwise they are paths from the root, or,
for a request that came through a proxy, relative references: the client resolves these against the address
that it asked (RFC 3986, section 5.2), so they are right below any path at which the proxy serves.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from multidict import istr

from jobsvc.web.auth.client_address import Peers
from jobsvc.web.connection.fast_request import FastRequest
from jobsvc.web.paths import JOBS

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
_PREFIX_CAP: Final = 1024
_PREFIX_FIELD: Final = istr("X-Forwarded-Prefix")
# Names of the module are found sooner than those of another one.
_FORWARDED_FOR: Final = hdrs.X_FORWARDED_FOR
_VIA: Final = hdrs.VIA
_FORWARDED: Final = hdrs.FORWARDED
_FORWARDED_HOST: Final = hdrs.X_FORWARDED_HOST
_FORWARDED_PROTO: Final = hdrs.X_FORWARDED_PROTO


def job_base(public_url: str, job_id: str) -> str:
    """Return what the addresses of a job begin with, where they are not relative."""
    return f"{public_url}{JOBS}{job_id}/"


def came_by_proxy(request: web.Request | FastRequest) -> bool:
    """Whether a request came through a proxy, as far as its fields tell.

    What they say is not believed: it only decides between two forms of the same address.
    """
    headers = request.headers
    return (
        _FORWARDED_FOR in headers
        or _VIA in headers
        or _FORWARDED in headers
        or _FORWARDED_HOST in headers
        or _FORWARDED_PROTO in headers
        or _PREFIX_FIELD in headers
        or (not isinstance(request, FastRequest) and request.version < HttpVersion11)
    )


def download_url(base: str, version: str) -> str:
    """Return the address of one version of a job's output."""
    return f"{base}download?version={version}"


class PublicUrl:
    """Says how a request's client addresses the service."""

    def __init__(self, configured: str, peers: Peers) -> None:
        """Take the URL that the operator configured, or an empty one."""
        self._configured = configured
        self._peers = peers

    def for_request(self, request: web.Request) -> str:
        """Return what goes before the service's own paths, without a slash at its end; empty if not known.

        A trusted proxy says it by X-Forwarded-Proto, -Host and -Prefix. The prefix alone makes an absolute
        path. What any other peer says is ignored, as is what is no host or path.
        """
        if self._configured or not self._peers.trusts(request.remote):
            return self._configured
        prefix = _last(request, _PREFIX_FIELD)
        if len(prefix) > _PREFIX_CAP or not _PREFIX.fullmatch(prefix):
            return ""
        scheme, host = _last(request, hdrs.X_FORWARDED_PROTO).lower(), _last(request, hdrs.X_FORWARDED_HOST)
        origin = f"{scheme}://{host}" if scheme in {"http", "https"} and _HOST.fullmatch(host) else ""
        return origin + prefix.rstrip("/")


def _last(request: web.Request, field: str) -> str:
    """Return the last value of a list: the one that the nearest proxy added."""
    return ",".join(request.headers.getall(field, ())).rpartition(",")[2].strip(" \t")
