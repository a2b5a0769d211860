"""The one way into a handler: authenticate, then spend, then require the scope, then answer.

In this order a wrong token costs no budget of anyone's, and one that lacks the scope can't ask for ever.
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
from jobsvc.web.ratelimit.budgets import AuthFailures, Budget
from jobsvc.web.ratelimit.request_budget import BUDGET, FURTHER_RANGE
from jobsvc.web.ratelimit.seeking import RangeContinuations

FastHandler = Callable[[FastRequest], HTTPStatus | None]
"""Answers without a wait and says with which status, or does nothing."""

Authenticate = Callable[[web.Request], Token]
"""Says by which token a request comes, or raises Unauthorized."""

# A member of an enumeration takes long to look up.
_UNCHANGED: Final = HTTPStatus.NOT_MODIFIED


class Guard:
    """Wraps handlers, so that what gets through has a right to the route, if not yet to the job."""

    def __init__(
        self, gate: TokenAuthenticator, budgets: Mapping[str, Budget], failures: AuthFailures, peers: Peers
    ) -> None:
        """Let in whom `gate` knows; `budgets` are by the name that routes use."""
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

        `parameters` are the names that its query may have. The wrapper raises Unauthorized, RateLimited,
        InsufficientScope, and BadRequest for any other query parameter. A route that lets in by something
        other than the Authorization field gives its own `authenticate`; its failures count all the same.
        With `seeks`, further ranges of an output that is being read are charged there.
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
        """Wrap a handler that any live token may call, at no cost; it finds the Token under TOKEN.

        The wrapper raises Unauthorized, RateLimited for too many failed tokens, and BadRequest for any query
        parameter.
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
        """Wrap what decides on an answer without a wait, or returns None where it can't; likewise.

        Only what is sent is spent. A wrong token is not counted, and who has nothing left to spend is not
        refused: the general way does that, as it does for who comes without the Authorization field.
        """
        authenticate, spent = self._gate.authenticate, self._budgets[budget]

        def guarded(asked: FastRequest) -> HTTPStatus | None:
            token = authenticate(asked.headers)
            require(token, scope)
            decided = handler(asked, token)
            if decided is None:
                return None
            if seeks is not None:
                return _send_part(asked, token, decided, spent, seeks)
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
        """Count a wrong token against its sender; a right one passes whatever was before. RateLimited."""
        if isinstance(wrong, NoCredentials):
            return
        try:
            self._failures.hit(self._peers.address_of(request))
        except RateLimited as refused:
            refused.reason, refused.token_id = wrong.reason, wrong.token_id
            raise


def _send_part(
    asked: FastRequest, token: Token, decided: PreparedResponse, budget: Budget, seeks: RangeContinuations
) -> HTTPStatus | None:
    """Send an answer that may be a further range, which is charged to a budget of its own."""
    key = seeks.key_of(asked, token)
    if seeks.is_continuation(asked, key) and seeks.budget.try_acquire(token):
        told: str | None = budget.lines(token)
    else:
        told = budget.consume(token, unchanged=decided.status is _UNCHANGED)
    if told is None:
        return None
    decided.send(told)
    seeks.record(asked, key, decided.status)
    return decided.status
