"""Decide whether and when to send a request again."""

from __future__ import annotations

from jobsvc.client.protocol.steps import Operation, Request, Response


def send_with_retries(request: Request, retries: int) -> Operation[Response]:
    """Send a request until its response is final: 2xx, 304, or an error that a retry cannot mend.

    Raises Problem for an error response, or ConnectionFailed, after `retries` further attempts.
    """
    raise NotImplementedError
