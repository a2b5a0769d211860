from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from jobsvc.domain.job import parse_record
from jobsvc.storage.reader import Identity, Reading
from jobsvc.web.representation import Representations

VERSION: Final = Identity(1, 2, 3, 4)
DIGEST: Final = bytes(range(32))


def reading(**keys: Any) -> Reading:
    job = parse_record("job-1", {"status": "done", "owner": "anna"} | keys, 0)
    return Reading(job, VERSION, output=VERSION, settled=True)


@pytest.fixture
def made() -> Representations:
    return Representations(most=2)


def test_the_same_is_made_once(made: Representations) -> None:
    known = reading()
    assert made.of(known, None) is made.of(known, None)
    assert made.of(known, None, DIGEST) is made.of(known, None, DIGEST)


def test_a_digest_that_comes_or_goes_is_another_representation(made: Representations) -> None:
    known = reading()
    without, having, again = (made.of(known, None, digest) for digest in (None, DIGEST, None))
    assert "outputSha256" not in orjson.loads(without.body)
    assert orjson.loads(having.body) == orjson.loads(without.body) | {"outputSha256": DIGEST.hex()}
    assert having.etag != without.etag
    assert again == without


def test_another_reading_is_another_representation(made: Representations) -> None:
    before, after = made.of(reading(attempt=1), None), made.of(reading(attempt=2), None)
    assert (orjson.loads(before.body)["attempt"], orjson.loads(after.body)["attempt"]) == (1, 2)
    assert before.etag != after.etag


def test_logs_are_never_remembered(made: Representations) -> None:
    known = reading()
    assert orjson.loads(made.of(known, "one").body)["logs"] == "one"
    assert orjson.loads(made.of(known, "two").body)["logs"] == "two"
    assert "logs" not in orjson.loads(made.of(known, None).body)
