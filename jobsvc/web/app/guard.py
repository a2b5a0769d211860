"""Guard every handler: authenticate, then charge the budget, then require the scope, then call the handler.

In this order an invalid token consumes no budget, and a token without the scope cannot send requests without
limit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from jobsvc.domain.access import Token, require
from jobsvc.domain.errors import ApiError, RateLimited, Unauthorized
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN, NoCredentials, TokenAuthenticator
from jobsvc.web.auth.client_address import Peers
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.ratelimit.budgets import BUDGET, FURTHER_RANGE, AuthFailures, Budget
from jobsvc.web.ratelimit.seeking import RangeContinuations

FastHandler = Callable[[FastRequest], HTTPStatus | None]
"""Responds without waiting and returns the status, or does nothing and returns None."""

Authenticate = Callable[[web.Request], Token]
"""Returns the token of a request, or raises Unauthorized."""

# Looking up a member of an enumeration is slow.
_UNCHANGED: Final = HTTPStatus.NOT_MODIFIED


class Guard:
    """Wraps handlers so that they only get requests with a right to the route; the job is checked later."""

    def __init__(
        self, gate: TokenAuthenticator, budgets: Mapping[str, Budget], failures: AuthFailures, peers: Peers
    ) -> None:
        """`gate` authenticates tokens; `budgets` are keyed by the name that routes use."""
        self._gate = gate
        self._budgets = budgets
        self._failures = failures
        self._peers = peers

    def __call__(
        self,
        handler: Handler,
        *,
        scope: str,
        budget: str,
        parameters: Collection[str] = (),
        authenticate: Authenticate | None = None,
        seeks: RangeContinuations | None = None,
    ) -> Handler:
        """Wrap a handler; it finds the Token under TOKEN on its request.

        `parameters` are the names of the allowed query parameters. The wrapper raises Unauthorized,
        RateLimited, InsufficientScope, and BadRequest if there is any other query parameter. A route with
        credentials other than the Authorization field passes its own `authenticate`; its failures are
        counted too. With `seeks`, further ranges of an output that is being read are charged there.
        """
        present = authenticate or self._bearer
        spent = self._budgets[budget]

        def admitted(request: web.Request) -> Awaitable[web.StreamResponse]:
            require(request[TOKEN], scope)
            if "?" in request.raw_path:
                query_params.only(request.query, *parameters)
            return handler(request)

        limited = spent.limited(admitted)

        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._authenticate(request, present)
            token = request[TOKEN]
            request[BUDGET] = spent
            further = seeks is not None and seeks.is_continuation(request, seeks.key_of(request, token))
            if seeks is None or not further or not seeks.budget.try_acquire(token):
                return await limited(request)
            request[FURTHER_RANGE] = True
            try:
                response = await admitted(request)
            except ApiError:
                spent.try_acquire(token)
                raise
            if response.status >= HTTPStatus.BAD_REQUEST:
                spent.try_acquire(token)
            return response

        return guarded

    @property
    def budgets(self) -> Collection[Budget]:
        """The budgets that routes are counted in."""
        return self._budgets.values()

    def authenticated(self, handler: Handler) -> Handler:
        """Wrap a handler that any live token can call without a budget; it finds the Token under TOKEN.

        The wrapper raises Unauthorized, RateLimited if there were too many failed tokens, and BadRequest if
        there is any query parameter.
        """

        @wraps(handler)
        async def authenticated(request: web.Request) -> web.StreamResponse:
            self._authenticate(request, self._bearer)
            query_params.only(request.query)
            return await handler(request)

        return authenticated

    def fast(
        self,
        handler: Callable[[FastRequest, Token], PreparedResponse | None],
        *,
        scope: str,
        budget: str,
        seeks: RangeContinuations | None = None,
    ) -> FastHandler:
        """Wrap a handler that prepares a response without waiting, or returns None if it cannot.

        Only a response that is sent is charged. An invalid token is not counted here, and a request over
        budget is not refused: the general path does both, and handles requests without Authorization.
        """
        authenticate, spent = self._gate.authenticate, self._budgets[budget]

        def guarded(asked: FastRequest) -> HTTPStatus | None:
            token = authenticate(asked.headers)
            require(token, scope)
            decided = handler(asked, token)
            if decided is None:
                return None
            if seeks is not None:
                return seeks.send(asked, token, decided, spent)
            told = spent.consume(token, unchanged=decided.status is _UNCHANGED)
            if told is None:
                return None
            decided.send(told)
            return decided.status

        return guarded

    def _bearer(self, request: web.Request) -> Token:
        return self._gate.authenticate(request.headers)

    def _authenticate(self, request: web.Request, authenticate: Authenticate) -> None:
        try:
            request[TOKEN] = authenticate(request)
        except Unauthorized as wrong:
            self._count(request, wrong)
            raise

    def _count(self, request: web.Request, wrong: Unauthorized) -> None:
        """Count an invalid token against its sender's address; valid tokens are never refused for it.

        Raises RateLimited if there were too many.
        """
        if isinstance(wrong, NoCredentials):
            return
        try:
            self._failures.hit(self._peers.address_of(request))
        except RateLimited as refused:
            refused.reason, refused.token_id = wrong.reason, wrong.token_id
            raise
