"""Guard handlers: authenticate, then charge the budget, then require the scope, then call the handler.

In this order an invalid token consumes no budget, and a token without the scope cannot send requests without
limit. The fast path charges last: it leaves every request that it refuses to the general path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import istr

from jobsvc.domain.access import Token, require
from jobsvc.domain.errors import ApiError, BadRequest, RateLimited, Unauthorized
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN, NoCredentials, TokenAuthenticator
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.auth.sessions import Sessions
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.ratelimit.budgets import BUDGET, FURTHER_RANGE, AuthFailures, Budget
from jobsvc.web.ratelimit.further_ranges import FurtherRanges

FastHandler = Callable[[FastRequest], HTTPStatus | None]
"""Responds without waiting and returns the status, or does nothing and returns None."""

PrepareFast = Callable[[FastRequest, Token], PreparedResponse | None]
"""Prepares a response without waiting, or returns None if it cannot."""

Authenticate = Callable[[web.Request], Token]
"""Returns the token of a request, or raises Unauthorized."""

_FETCH_DEST: Final = istr("Sec-Fetch-Dest")
_EXECUTED: Final = frozenset(
    {
        *("script", "style", "xslt", "worker", "sharedworker", "serviceworker"),
        *("audioworklet", "paintworklet", "embed", "object"),
    }
)
"""Values of Sec-Fetch-Dest with which a page would run or apply the response."""

# Looking up a member of an enumeration is slow.
_UNCHANGED: Final = HTTPStatus.NOT_MODIFIED


class Guard:
    """Wraps handlers so that they only get requests with a right to the route; the job is checked later."""

    def __init__(
        self,
        authenticator: TokenAuthenticator,
        sessions: Sessions,
        budgets: Mapping[str, Budget],
        failures: AuthFailures,
        client_addresses: ClientAddresses,
        *,
        fast_lines: str = "",
    ) -> None:
        """`budgets` are keyed by the name that routes use. Sessions are accepted on all but fast paths.

        `fast_lines` are header lines that responses on the fast path have besides those of the budget.
        """
        self._authenticator = authenticator
        self._sessions = sessions
        self._budgets = budgets
        self._failures = failures
        self._client_addresses = client_addresses
        self._fast_lines = fast_lines

    def wrap(
        self,
        handler: Handler,
        *,
        scope: str,
        budget: str,
        parameters: Collection[str] = (),
        authenticate: Authenticate | None = None,
        further_ranges: FurtherRanges | None = None,
    ) -> Handler:
        """Wrap a handler; it finds the Token under TOKEN on its request.

        `parameters` are the names of the allowed query parameters. The wrapper raises Unauthorized,
        RateLimited, InsufficientScope, and BadRequest if there is any other query parameter. A route with
        other credentials than tokens and sessions passes its own `authenticate`; its failures are
        counted too. With `further_ranges`, further ranges of an output that is being read are charged there.
        """
        authenticate = authenticate or self._sessions.authenticate
        charged = self._budgets[budget]

        def allowed(request: web.Request) -> Awaitable[web.StreamResponse]:
            require(request[TOKEN], scope)
            if "?" in request.raw_path:
                query_params.reject_unknown(request.query, *parameters)
            return handler(request)

        limited = charged.limited(allowed)

        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            await self._authenticate(request, authenticate)
            token = request[TOKEN]
            request[BUDGET] = charged
            if further_ranges is None or not await further_ranges.try_charge(request, token):
                return await limited(request)
            request[FURTHER_RANGE] = True
            try:
                response = await allowed(request)
            except ApiError:
                await charged.acquire(token)
                raise
            if response.status >= HTTPStatus.BAD_REQUEST:
                await charged.acquire(token)
            return response

        return guarded

    @property
    def budgets(self) -> Collection[Budget]:
        """The budgets that routes are counted in."""
        return self._budgets.values()

    def wrap_token_only(self, handler: Handler, *, authenticate: Authenticate | None = None) -> Handler:
        """Wrap a handler that any live token can call without a budget; it finds the Token under TOKEN.

        The wrapper raises Unauthorized, RateLimited if there were too many failed tokens, and BadRequest if
        there is any query parameter.
        """
        authenticate = authenticate or self._sessions.authenticate

        @wraps(handler)
        async def authenticated(request: web.Request) -> web.StreamResponse:
            await self._authenticate(request, authenticate)
            query_params.reject_unknown(request.query)
            return await handler(request)

        return authenticated

    def wrap_fast(
        self,
        handler: PrepareFast,
        *,
        scope: str,
        budget: str,
        further_ranges: FurtherRanges | None = None,
    ) -> FastHandler:
        """Wrap a handler that prepares a response without waiting, or returns None if it cannot.

        Only a response that is sent is charged. An invalid token is not counted here, and a request over
        budget is not refused: the general path does both, and handles requests without Authorization.
        """
        authenticate, charged = self._authenticator.authenticate, self._budgets[budget]
        handler = _with_lines(handler, self._fast_lines) if self._fast_lines else handler

        def guarded(request: FastRequest) -> HTTPStatus | None:
            token = authenticate(request.headers)
            require(token, scope)
            response = handler(request, token)
            if response is None:
                return None
            if further_ranges is None:
                budget_lines = charged.consume(token, unchanged=response.status is _UNCHANGED)
            else:
                budget_lines = further_ranges.charge(request, token, response.status, charged)
            if budget_lines is None:
                return None
            response.send(budget_lines)
            return response.status

        return guarded

    async def _authenticate(self, request: web.Request, authenticate: Authenticate) -> None:
        _require_data(request)
        try:
            request[TOKEN] = authenticate(request)
        except Unauthorized as exc:
            await self._count_failure(request, exc)
            raise

    async def _count_failure(self, request: web.Request, failure: Unauthorized) -> None:
        """Count an invalid token against its sender's address; valid tokens are never refused for it.

        Raises RateLimited if there were too many.
        """
        if isinstance(failure, NoCredentials):
            return
        try:
            await self._failures.hit(self._client_addresses.address_of(request))
        except RateLimited as exc:
            exc.reason, exc.token_id = failure.reason, failure.token_id
            raise


def _require_data(request: web.Request) -> None:
    """Raise BadRequest if a page would run or apply the response, which it requests by cookie or link.

    The page's policy allows all scripts of its origin, and so those among the outputs of a farm: whatever a
    defect of the page let into its document could load them. A browser cannot send Authorization for these.
    """
    headers = request.headers
    if headers.get(_FETCH_DEST) in _EXECUTED and hdrs.AUTHORIZATION not in headers:
        raise BadRequest("Sec-Fetch-Dest: responses of the API are data, and no part of a page.")


def _with_lines(prepare: PrepareFast, lines: str) -> PrepareFast:
    def with_lines(request: FastRequest, token: Token) -> PreparedResponse | None:
        prepared = prepare(request, token)
        if prepared is None:
            return None
        return PreparedResponse(prepared.status, lambda further: prepared.send(further + lines))

    return with_lines
