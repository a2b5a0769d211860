from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from jobsvc.domain.status_record import parse_record
from jobsvc.storage.files.file_version import Identity
from jobsvc.storage.jobs.snapshot import Reading
from jobsvc.web.jobs.representation import Representations

VERSION: Final = Identity(1, 2, 3, 4)
DIGEST: Final = bytes(range(32))


def reading(output: Identity | None = VERSION, **keys: Any) -> Reading:
    job = parse_record("job-1", {"status": "done", "owner": "anna"} | keys, 0)
    return Reading(job, VERSION, output=output, settled=True)


@pytest.fixture
def digests() -> dict[Identity, bytes]:
    """What is known, by version of the output."""
    return {}


@pytest.fixture
def made(digests: dict[Identity, bytes]) -> Representations:
    return Representations(digest_of=lambda known: digests.get(known.output) if known.output else None)


def test_the_same_is_made_once(made: Representations, digests: dict[Identity, bytes]) -> None:
    known = reading()
    assert made.of(known, None) is made.of(known, None)
    digests[VERSION] = DIGEST
    assert made.of(known, None) is made.of(known, None)


def test_a_digest_that_comes_or_goes_is_another_representation(
    made: Representations, digests: dict[Identity, bytes]
) -> None:
    known = reading()
    without = made.of(known, None)
    digests[VERSION] = DIGEST
    having = made.of(known, None)
    digests.clear()
    assert "outputSha256" not in orjson.loads(without.body)
    assert orjson.loads(having.body) == orjson.loads(without.body) | {"outputSha256": DIGEST.hex()}
    assert having.etag != without.etag
    assert made.of(known, None) == without


def test_a_digest_is_of_the_version_that_the_reading_saw(
    made: Representations, digests: dict[Identity, bytes]
) -> None:
    digests[VERSION] = DIGEST
    for output in (Identity(1, 2, 3, 5), None):
        assert "outputSha256" not in orjson.loads(made.of(reading(output), None).body)


def test_where_none_are_to_be_shown_none_is() -> None:
    assert "outputSha256" not in orjson.loads(Representations().of(reading(), None).body)
