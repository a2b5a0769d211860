"""Browser sessions: a cookie stands for a token, so that the page, EventSource and <video> need no header.

The cookie is the id of a token and an expiry, signed. No session is stored: any replica with the same key
accepts it, and it is valid as long as the token is live. `sign_session` and `verify_session` are pure
functions; `Sessions` has the key, and decides which token a request has.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from multidict import istr

from jobsvc.domain.access import Token
from jobsvc.domain.errors import BadRequest, CrossOriginRequest
from jobsvc.web.auth.bearer import NoCredentials, TokenAuthenticator
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.auth.signing_key import SigningKey, sign

COOKIE: Final = "jobsvc"
SECURE_COOKIE: Final = "__Host-jobsvc"
"""The name with https: browsers accept it from no other host (RFC 6265bis, section 4.1.3.2)."""
MAX_AGE_S: Final = 7 * 86_400
"""Seconds after which a browser has to sign in again."""
MAX_COOKIES_LENGTH: Final = 8192
"""The longest Cookie field that is parsed, in characters."""

SESSION_EXPIRES: Final = web.RequestKey("jobsvc.session-expires", float)
"""On a request that a cookie authenticated: when its session ends, in seconds since the epoch."""

_FORMAT: Final = "jobsvc session 1"
_VALUE: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):([1-9][0-9]{0,15}):([A-Za-z0-9_-]{43})", re.ASCII)
_FETCH_SITE: Final = istr("Sec-Fetch-Site")
_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


def sign_session(key: bytes, token_id: str, expires: int) -> str:
    """Return the value of the cookie of a session that ends at `expires`, in seconds since the epoch."""
    return f"{token_id}:{expires}:{sign(key, _FORMAT, token_id, str(expires))}"


def verify_session(key: bytes, value: str, now: float) -> tuple[str, int] | None:
    """Return the id of the token that a cookie stands for, and the expiry of the session.

    Returns None if the cookie is malformed, forged or expired.
    """
    match = _VALUE.fullmatch(value)
    if match is None:
        return None
    token_id, expires, signature = match.groups()
    if not hmac.compare_digest(signature, sign(key, _FORMAT, token_id, expires)):
        return None
    return (token_id, int(expires)) if now < int(expires) else None


class Sessions:
    """Creates sessions and authenticates requests. Belongs to the event loop."""

    def __init__(
        self,
        key: SigningKey,
        authenticator: TokenAuthenticator,
        client_addresses: ClientAddresses,
        *,
        public_url: str = "",
        enabled: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`public_url` is that of the service if the operator configured one.

        Unless `enabled`, cookies are ignored.
        """
        self._key = key
        self._authenticator = authenticator
        self._client_addresses = client_addresses
        public = urlsplit(public_url.lower())  # Origin is in lower case
        self._is_public_https, self._public_host = public.scheme == "https", public.netloc
        self._public_url = public_url
        self._enabled = enabled
        self._clock = clock

    def authenticate(self, request: web.Request) -> Token:
        """Return the live token of a request: in its Authorization field if it has one, else of its cookie.

        Raises Unauthorized if the token is not valid, NoCredentials if the request has neither or the session
        has ended: a signature cannot be guessed. Raises CrossOriginRequest if a page of another origin sends
        the cookie.
        """
        headers = request.headers
        values = [] if hdrs.AUTHORIZATION in headers or not self._enabled else self._cookies(request)
        if not values:
            return self._authenticator.authenticate(headers)
        self._require_same_origin(request)
        session = verify_session(self._key.value, values[0], self._clock()) if len(values) == 1 else None
        if session is None:
            raise NoCredentials("The session is invalid or has expired. Sign in again.", "session")
        token_id, request[SESSION_EXPIRES] = session
        token = self._authenticator.get_live(token_id)
        if token is None:
            reason = self._authenticator.rejection_reason(token_id)
            raise NoCredentials("The token of the session is expired or revoked.", reason, token_id)
        return token

    def authenticate_token(self, request: web.Request) -> Token:
        """Return the live token in the Authorization field. Raises Unauthorized and CrossOriginRequest."""
        token = self._authenticator.authenticate(request.headers)
        self._require_same_origin(request)
        return token

    def start(self, request: web.Request, response: web.StreamResponse, token: Token) -> None:
        """Set the cookie of a session that ends no later than the token.

        Raises BadRequest if the browser would not keep it.
        """
        self._require_secure_origin(request)
        now = self._clock()
        expires = now + MAX_AGE_S
        if token.expires is not None:
            expires = min(expires, token.expires)
        value = sign_session(self._key.value, token.id, int(expires))
        self._set(request, response, value, max_age=int(expires - now))

    def end(self, request: web.Request, response: web.StreamResponse) -> None:
        """Remove the cookie. Raises CrossOriginRequest."""
        self._require_same_origin(request)
        self._set(request, response, "", max_age=0)

    def _set(self, request: web.Request, response: web.StreamResponse, value: str, *, max_age: int) -> None:
        response.set_cookie(
            self._cookie_name(request),
            value,
            max_age=max_age,
            path="/",
            secure=self._is_https(request),
            httponly=True,
            samesite="Strict",
        )

    def _cookie_name(self, request: web.Request) -> str:
        return SECURE_COOKIE if self._is_https(request) else COOKIE

    def _is_https(self, request: web.Request) -> bool:
        """Whether the browser uses https, as a trusted proxy says or as the operator has configured."""
        scheme = self._client_addresses.forwarded(request, hdrs.X_FORWARDED_PROTO)
        return self._is_public_https or scheme.lower() == "https"

    def _require_secure_origin(self, request: web.Request) -> None:
        """Raise BadRequest if the cookie is for https, and the browser uses plain http to another machine.

        Browsers do not keep such a cookie, and do not say so: the next request has none. Origin has the
        scheme that the browser uses. Sec-Fetch-Site is only sent over https or to the same machine, where
        browsers keep the cookie (Chromium: http://localhost and http://127.0.0.1).
        """
        headers = request.headers
        is_plain = headers.get(hdrs.ORIGIN, "").startswith("http://") and _FETCH_SITE not in headers
        if not (is_plain and self._is_https(request)):
            return
        host = self._client_addresses.forwarded(request, hdrs.X_FORWARDED_HOST) or headers.get(hdrs.HOST, "")
        url, remedy = f"https://{host}", "the proxy must not send X-Forwarded-Proto: https"
        if self._is_public_https:
            url, remedy = self._public_url.rstrip("/"), "--public-url has to be the http URL"
        raise BadRequest(
            "Signing in is not possible over plain http, because the cookie of the session is for https only."
            f" Open {url}/ instead. If the service has no https, {remedy}."
        )

    def _cookies(self, request: web.Request) -> list[str]:
        """Return the values of all cookies that have the name of the session's, in all Cookie fields."""
        text = ";".join(request.headers.getall(hdrs.COOKIE, ()))
        if not text or len(text) > MAX_COOKIES_LENGTH:
            return []
        name = self._cookie_name(request)
        pairs = (part.strip(" \t").partition("=") for part in text.split(";"))
        return [value for key, _, value in pairs if key == name]

    def _require_same_origin(self, request: web.Request) -> None:
        """Raise CrossOriginRequest unless the page that sent the request is of the service's own origin.

        Sec-Fetch-Site decides: browsers send it to https URLs and to the same machine. Without it, the host
        of Origin has to be the service's, and a request that changes something needs an Origin.
        """
        headers, is_reading = request.headers, request.method in _READING
        site = headers.get(_FETCH_SITE)
        if site is not None:
            allowed = site == "same-origin" or (is_reading and site == "none")
        elif hdrs.ORIGIN in headers:
            allowed = _host_of(headers[hdrs.ORIGIN]) in self._own_hosts(request)
        else:
            allowed = is_reading
        if not allowed:
            raise CrossOriginRequest

    def _own_hosts(self, request: web.Request) -> set[str]:
        """Return the hosts, with ports, at which the browser may have requested the page."""
        forwarded = self._client_addresses.forwarded(request, hdrs.X_FORWARDED_HOST)
        return {request.headers.get(hdrs.HOST, ""), forwarded, self._public_host} - {""}


def _host_of(origin: str) -> str:
    """Return host and port of an Origin field; empty if it has none, like "null"."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
