"""Build the URLs in responses.

They start with the public URL of the service if that is known. Otherwise they are absolute paths or, for a
request that came through a proxy, relative references: the client resolves these against the URL that it
requested (RFC 3986, section 5.2), so they are correct below any path under which the proxy serves.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from multidict import istr

from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.connection.fast_request import FastRequest
from jobsvc.web.paths import JOBS, file_reference

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
_MAX_PREFIX_LENGTH: Final = 1024
_PREFIX_FIELD: Final = istr("X-Forwarded-Prefix")


def job_base(public_url: str, job_id: str) -> str:
    """Return the prefix of the URLs of a job that are not relative."""
    return f"{public_url}{JOBS}{job_id}/"


def came_by_proxy(request: web.Request | FastRequest) -> bool:
    """Whether a request came through a proxy, judged by its header fields.

    The fields are not trusted: they only decide between two forms of the same URL.
    """
    headers = request.headers
    return (
        hdrs.X_FORWARDED_FOR in headers
        or hdrs.VIA in headers
        or hdrs.FORWARDED in headers
        or hdrs.X_FORWARDED_HOST in headers
        or hdrs.X_FORWARDED_PROTO in headers
        or _PREFIX_FIELD in headers
        or (not isinstance(request, FastRequest) and request.version < HttpVersion11)
    )


def download_url(base: str, version: str | None = None) -> str:
    """Return the URL of a job's main output: of one version of a file, or of the archive of other outputs."""
    return f"{base}download" if version is None else f"{base}download?version={version}"


def file_url(base: str, output: str, version: str, path: str | None = None) -> str:
    """Return the URL of one version of a file of an output; without `path`, the output is the file."""
    return f"{base}{file_reference(output, path)}?version={version}"


def archive_url(base: str, output: str) -> str:
    """Return the URL of the archive of one output."""
    return f"{base}archive.tar?output={output}"


class PublicUrl:
    """Find the public URL under which a request's client reaches the service."""

    def __init__(self, configured: str, client_addresses: ClientAddresses) -> None:
        """Take the URL that the operator configured; empty if there is none."""
        self._configured = configured
        self._client_addresses = client_addresses

    def for_request(self, request: web.Request) -> str:
        """Return the prefix of the service's own paths, without a trailing slash; empty if not known.

        A trusted proxy gives it by X-Forwarded-Proto, -Host and -Prefix; the prefix alone makes an absolute
        path. The fields of other peers are ignored, and so are values that are not a valid host or path.
        """
        if self._configured or not self._client_addresses.trusts(request.remote):
            return self._configured
        forwarded = self._client_addresses.forwarded
        prefix = forwarded(request, _PREFIX_FIELD)
        if len(prefix) > _MAX_PREFIX_LENGTH or not _PREFIX.fullmatch(prefix):
            return ""
        scheme, host = (
            forwarded(request, hdrs.X_FORWARDED_PROTO).lower(),
            forwarded(request, hdrs.X_FORWARDED_HOST),
        )
        origin = f"{scheme}://{host}" if scheme in {"http", "https"} and _HOST.fullmatch(host) else ""
        return origin + prefix.rstrip("/")

    def job_base_for(self, request: web.Request, job_id: str) -> str:
        """Return the prefix of a job's URLs, in the response to a request below the job's own URL.

        Empty for relative references, if the request came through a proxy whose public URL is not known.
        """
        public_url = self.for_request(request)
        return job_base(public_url, job_id) if public_url or not came_by_proxy(request) else ""
