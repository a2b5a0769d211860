"""Keep the traceparent of a request for the log lines about it.

Setting it costs a request one lookup of a header; it is parsed only when a line is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

from multidict import MultiMapping, istr

from jobsvc.domain import trace_context

HEADER: Final = istr(trace_context.HEADER)

_current: ContextVar[Sequence[str]] = ContextVar("jobsvc_traceparent", default=())


def begin(headers: MultiMapping[str]) -> None:
    """Bind the traceparent fields of a request to this task."""
    _current.set(headers.getall(HEADER, ()))


def current_id() -> str | None:
    """Return the trace id of the request that this task handles; None if it has none, or an invalid one."""
    return trace_context.trace_id_of(_current.get())
