"""Count and log the faults of storage and of the files about tokens and links, which components report."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final

import structlog

from jobsvc.observe.metrics import Metrics
from jobsvc.storage.files.os_errors import describe

FAULT_LOG_INTERVAL_S: Final = 60.0
"""Seconds between two log lines about the same storage fault; a metric counts every fault."""

log = structlog.get_logger("jobsvc.service")


def storage_fault(metrics: Metrics) -> Callable[[str, Exception], None]:
    """Return a callback that counts each storage fault and logs each reason once per FAULT_LOG_INTERVAL_S."""
    logged: dict[str, float] = {}

    def on_fault(key: str, exc: Exception) -> None:
        metrics.storage_unavailable.inc()
        reason = describe(exc) if isinstance(exc, OSError) else getattr(exc, "reason", None) or str(exc)
        now = monotonic()
        if now - logged.get(reason, -inf) >= FAULT_LOG_INTERVAL_S:
            logged[reason] = now
            log.warning("storage-fault", of=key, reason=reason)

    return on_fault


def bad_token_file(metrics: Metrics) -> Callable[[Exception], None]:
    """Return a callback for the reasons why the token file cannot be used (ReloadedFile)."""

    def on_bad_file(exc: Exception) -> None:
        metrics.token_file_errors.inc()
        log.error("token-file-unusable", reason=str(exc), kept="the last valid version")

    return on_bad_file


def bad_revoked_links(metrics: Metrics) -> Callable[[Exception], None]:
    """Return a callback for the reasons why the file of revoked links cannot be used (ReloadedFile)."""

    def on_bad_file(exc: Exception) -> None:
        metrics.revoked_links_errors.inc()
        log.error("revoked-links-unusable", reason=str(exc), effect="only known links are revoked")

    return on_bad_file


def bad_token_labels(metrics: Metrics) -> Callable[[Exception], None]:
    """Return a callback for the reasons why the labels of tokens cannot be used (ReloadedFile)."""

    def on_bad_labels(exc: Exception) -> None:
        metrics.token_label_errors.inc()
        log.error("token-labels-unusable", reason=str(exc), effect="tokens have no labels")

    return on_bad_labels
