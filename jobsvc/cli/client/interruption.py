"""End a download on Ctrl-C or SIGTERM with one line that says how to continue it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from jobsvc.cli.client.exit_codes import ClientFailure, ExitCode

CONTINUED: Final = "Interrupted. The same command continues where this one stopped."
NOT_CONTINUED: Final = "Interrupted."


@contextmanager
def interruptible(message: str = CONTINUED) -> Iterator[None]:
    """Turn KeyboardInterrupt into ClientFailure with this message; SIGTERM has the same effect as Ctrl-C."""
    try:
        with _sigterm_interrupts():
            yield
    except KeyboardInterrupt as exc:
        raise ClientFailure(message, ExitCode.INTERRUPTED) from exc


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
