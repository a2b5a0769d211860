"""The budget that a request is counted in, and the RateLimit fields of its response."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.ratelimit.budgets import Budget

BUDGET: Final = web.RequestKey("jobsvc.budget", Budget)
"""On a request: the budget that it is counted in."""

FURTHER_RANGE: Final = web.RequestKey("jobsvc.further-range", bool)
"""On a request: set if its budget was not charged."""


def refund(request: web.Request) -> None:
    """Refund a request whose response is a 304; call this before the common headers are added."""
    budget = request.get(BUDGET)
    if budget is not None and FURTHER_RANGE not in request:
        budget.refund(request[TOKEN])


def fields(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Return the RateLimit fields of the response to a request; empty if it has no budget."""
    budget = request.get(BUDGET)
    return () if budget is None else budget.fields(request[TOKEN])


def lines(request: web.Request) -> str:
    """Return the same fields as lines of a head."""
    budget = request.get(BUDGET)
    return "" if budget is None else budget.lines(request[TOKEN])
