"""The name of one request, on its answer and on every line that is logged for it.

Setting it costs a request one context variable; it is read only when a line is really written.
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar, Token
from itertools import count
from typing import Final

# A proxy's id is kept, so that its lines and ours can be put together, but only where it can do no harm in
# a header or a log; and a token or a link's signature (43 characters of base64url) sent here by mistake must
# not be written for it.
_ACCEPTABLE: Final = re.compile(
    r"(?!.*jsvc_)(?![A-Za-z0-9_-]{43}\Z)[A-Za-z0-9._-]{1,64}", re.ASCII | re.IGNORECASE
)

_current: ContextVar[str | None] = ContextVar("jobsvc_request_id", default=None)
_process: Final = os.urandom(4).hex()
_numbers: Final = count(int.from_bytes(os.urandom(3), "big"))


def new() -> str:
    """Make an id of 16 hexadecimal digits: eight of this process, eight that count its requests.

    Unlike 16 random ones they cost no system call. They name a request and protect nothing.
    """
    return f"{_process}{next(_numbers) & 0xFFFFFFFF:08x}"


def accept(offered: str | None) -> str:
    """Take a client's X-Request-Id where it is of [A-Za-z0-9._-]{1,64} and no secret, else make a new id."""
    if offered is not None and _ACCEPTABLE.fullmatch(offered):
        return offered
    return new()


def begin(offered: str | None) -> Token[str | None]:
    """Accept what a client offers, or make a new id, and bind it: once for each request."""
    name = f"{_process}{next(_numbers) & 0xFFFFFFFF:08x}" if offered is None else accept(offered)
    return _current.set(name)


def end(begun: Token[str | None]) -> None:
    """Unbind it, where the task goes on with other things."""
    _current.reset(begun)


def bind(request_id: str) -> None:
    """Make it the id of what this task does from now on, and of the tasks that it starts."""
    _current.set(request_id)


def current() -> str | None:
    """Return the id of the request that is being answered here, if one is."""
    return _current.get()
