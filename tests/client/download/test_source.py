"""How files are divided into requests."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobsvc.client.download.source import (
    CHUNK,
    MAX_SEGMENT,
    MAX_SEGMENTS,
    PARALLEL_SIZE,
    Source,
    file_source,
)
from jobsvc.client.models import File


def segment_size(size: int, parallel: int = 4) -> int:
    return Source("job-1", "main", "a", "/", '"e"', size).segment_size(parallel)


def test_small_file_is_one_request() -> None:
    assert segment_size(PARALLEL_SIZE - 1) == PARALLEL_SIZE - 1


def test_connections_share_a_file_in_whole_chunks() -> None:
    assert segment_size(PARALLEL_SIZE) == 2 * CHUNK
    assert segment_size(100 * MAX_SEGMENT) == MAX_SEGMENT


@pytest.mark.parametrize("size", [1 << 50, (1 << 63) - 1])
def test_giant_size_is_not_divided_into_millions_of_requests(size: int) -> None:
    assert size / segment_size(size) <= MAX_SEGMENTS


def test_digest_of_an_empty_file_is_that_of_the_service() -> None:
    """A size of 0 alone, in a list that was changed on the way, must not make any file complete."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    file = File("job-1", "main", "a", None, 0, moment, "text/plain", '"e"', None)
    assert file_source(file).sha256 is None
