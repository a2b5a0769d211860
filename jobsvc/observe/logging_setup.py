"""Configure logging: one line per event on standard error.

Lines are JSON, or key=value with colours on a terminal. The standard library's loggers, which aiohttp and
asyncio use, have the same format. Secrets are removed in the last step before a line is formatted. Lines
about refused and failed requests are limited.
"""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from jobsvc.observe import json_lines, request_id, trace
from jobsvc.observe.line_limit import LineLimit
from jobsvc.observe.redaction import redact_mapping


def configure(stream: TextIO | None = None, *, level: int = logging.INFO, instance: str = "") -> None:
    """Send all logging of this process to `stream` (by default standard error); replaces earlier handlers.

    `instance`, the name of this process, is in every line.
    """
    stream = sys.stderr if stream is None else stream
    if isinstance(stream, TextIOWrapper) and not stream.isatty():
        stream.reconfigure(encoding="utf-8")  # JSON is UTF-8 in every locale
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _add_request_ids,
        *([_add_instance(instance)] if instance else []),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(shared, _terminal() if stream.isatty() else [_as_json]))
    handler.addFilter(LineLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _formatter(shared: list[Processor], final: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redact_secrets,
            *final,
        ],
    )


def _terminal() -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=not os.environ.get("NO_COLOR"),  # https://no-color.org
        exception_formatter=structlog.dev.plain_traceback,
        timestamp_key="time",
        pad_event_to=0,
    )
    return [_escape_controls, renderer]


def _as_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    first = {key: event.pop(key) for key in ("time", "level", "logger", "event") if key in event}
    return json_lines.encode({**first, **event}).decode()


def _escape_controls(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape control characters in foreign text, which could move the cursor or forge lines.

    Tracebacks are not escaped, because they consist of several lines.
    """
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key not in {"exception", "stack"}:
            event[key] = repr(value)[1:-1]
    return event


def _add_request_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    current = request_id.current()
    if current is not None:
        event.setdefault("requestId", current)
    trace_id = trace.current_id()
    if trace_id is not None:
        event.setdefault("traceId", trace_id)
    return event


def _add_instance(name: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("instance", name)
        return event

    return add


def _redact_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return redact_mapping(event)
