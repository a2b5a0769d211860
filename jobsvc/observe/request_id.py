"""Manage the id of a request, which is in its response and in every line that is logged for it.

Setting it costs a request one context variable; it is read only when a line is written.
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar, Token
from itertools import count
from typing import Final

# A proxy's id is kept, so that its log lines can be matched with the service's, but only if it is harmless in
# a header or a log. A token or a link's signature (43 characters of base64url) that is sent as an id by
# mistake must not be written.
_ACCEPTABLE: Final = re.compile(
    r"(?!.*jsvc_)(?![A-Za-z0-9_-]{43}\Z)[A-Za-z0-9._-]{1,64}", re.ASCII | re.IGNORECASE
)

HEADER: Final = "X-Request-Id"

_current: ContextVar[str | None] = ContextVar("jobsvc_request_id", default=None)
_process: Final = os.urandom(4).hex()
_numbers: Final = count(int.from_bytes(os.urandom(3), "big"))


def new() -> str:
    """Create an id of 16 hexadecimal digits: eight for this process, eight that count its requests.

    Unlike 16 random digits they cost no system call. An id only names a request; it need not be secret.
    """
    return f"{_process}{next(_numbers) & 0xFFFFFFFF:08x}"


def accept(offered: str | None) -> str:
    """Return a client's X-Request-Id if it matches [A-Za-z0-9._-]{1,64} and is no secret, else a new id."""
    if offered is not None and _ACCEPTABLE.fullmatch(offered):
        return offered
    return new()


def begin(offered: str | None) -> Token[str | None]:
    """Accept a client's id, or create a new one, and bind it; called once per request."""
    name = f"{_process}{next(_numbers) & 0xFFFFFFFF:08x}" if offered is None else accept(offered)
    return _current.set(name)


def end(token: Token[str | None]) -> None:
    """Unbind the id, for a task that continues with other work."""
    _current.reset(token)


def bind(request_id: str) -> None:
    """Bind an id to this task from now on, and to the tasks that it starts."""
    _current.set(request_id)


def current() -> str | None:
    """Return the id of the request that this task handles, or None."""
    return _current.get()
