"""Parse the traceparent header of W3C Trace Context (https://www.w3.org/TR/trace-context/). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

HEADER: Final = "traceparent"

# Version 00 has four fields; later versions can have more. Zeros are invalid ids, and ff an invalid version.
_FORM: Final = re.compile(
    r"(?!ff)(?:00(?=.{53}\Z)|(?!00)[0-9a-f]{2})"
    r"-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?",
    re.ASCII,
)


def trace_id_of(traceparent: Sequence[str]) -> str | None:
    """Return the trace id in the traceparent fields of a request; None unless there is a valid one."""
    match = _FORM.fullmatch(traceparent[0].strip(" \t")) if len(traceparent) == 1 else None
    return None if match is None else match[1]
