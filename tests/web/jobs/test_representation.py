from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from jobsvc.domain.status_record import parse_record
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.jobs.representation import RepresentationCache

VERSION: Final = FileVersion(1, 2, 3, 4)
DIGEST: Final = bytes(range(32))


def make_snapshot(output: FileVersion | None = VERSION, **keys: Any) -> JobSnapshot:
    job = parse_record("job-1", {"status": "done", "owner": "anna"} | keys, 0)
    return JobSnapshot(job, VERSION, output=output, is_stable=True)


@pytest.fixture
def digests() -> dict[FileVersion, bytes]:
    """Known digests by version of the output."""
    return {}


@pytest.fixture
def made(digests: dict[FileVersion, bytes]) -> RepresentationCache:
    return RepresentationCache(
        digest_of=lambda known: digests.get(known.output_version) if known.output_version else None
    )


def test_unchanged_representation_is_built_once(
    made: RepresentationCache, digests: dict[FileVersion, bytes]
) -> None:
    known = make_snapshot()
    assert made.get(known, None) is made.get(known, None)
    digests[VERSION] = DIGEST
    assert made.get(known, None) is made.get(known, None)


def test_added_or_removed_digest_is_another_representation(
    made: RepresentationCache, digests: dict[FileVersion, bytes]
) -> None:
    known = make_snapshot()
    without = made.get(known, None)
    digests[VERSION] = DIGEST
    having = made.get(known, None)
    digests.clear()
    assert "outputSha256" not in orjson.loads(without.body)
    assert orjson.loads(having.body) == orjson.loads(without.body) | {"outputSha256": DIGEST.hex()}
    assert having.etag != without.etag
    assert made.get(known, None) == without


def test_digest_is_of_the_version_in_the_snapshot(
    made: RepresentationCache, digests: dict[FileVersion, bytes]
) -> None:
    digests[VERSION] = DIGEST
    for output in (FileVersion(1, 2, 3, 5), None):
        assert "outputSha256" not in orjson.loads(made.get(make_snapshot(output), None).body)


def test_digest_is_left_out_if_not_requested() -> None:
    assert "outputSha256" not in orjson.loads(RepresentationCache().get(make_snapshot(), None).body)
