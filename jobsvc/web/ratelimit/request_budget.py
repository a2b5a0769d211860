"""The budget that a request is counted in, and the RateLimit fields of its answer."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.ratelimit.budgets import Budget

BUDGET: Final = web.RequestKey("jobsvc.budget", Budget)
"""On a request: the budget that it is counted in."""

FURTHER_RANGE: Final = web.RequestKey("jobsvc.further-range", bool)
"""On a request that its budget was not charged for."""


def refund(request: web.Request) -> None:
    """Count a request less whose answer is that there is nothing new; to be called before it is sealed."""
    budget = request.get(BUDGET)
    if budget is not None and FURTHER_RANGE not in request:
        budget.refund(request[TOKEN])


def fields(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Return the RateLimit fields of the answer to a request; none where no budget was in question."""
    budget = request.get(BUDGET)
    return () if budget is None else budget.fields(request[TOKEN])


def lines(request: web.Request) -> str:
    """Write the same as lines of a head."""
    budget = request.get(BUDGET)
    return "" if budget is None else budget.lines(request[TOKEN])
