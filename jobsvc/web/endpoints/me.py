"""`GET /api/me`: return the token of the request and what remains of its budgets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from jobsvc.domain.access import Token
from jobsvc.domain.timestamp import format_time
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.ratelimit.budgets import Budget
from jobsvc.web.responses import json_response


class MeEndpoint:
    """Handler of `GET /api/me` and its dependencies."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self._budgets = tuple(budgets)

    async def handle(self, request: web.Request) -> web.Response:
        """Handle GET and HEAD; no budget is charged."""
        token = request[TOKEN]
        budgets = {each.name: each.state(token)._asdict() for each in self._budgets}
        return json_response.uncached(describe(token) | {"budgets": budgets})


def describe(token: Token) -> dict[str, Any]:
    """Return what clients can see of a token; None for `label` or `expiresAt` if it has none."""
    expires = None if token.expires is None else format_time(round(token.expires * 1000) * 1000)
    return {
        "id": token.id,
        "owner": token.owner,
        "scopes": sorted(token.scopes),
        "label": token.label,
        "expiresAt": expires,
    }
