from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from jobsvc.domain.outputs import OutputKind
from jobsvc.domain.status_record import parse_record
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_states import OutputState, pack_states
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.jobs.representation import RenderedJob, RepresentationCache

VERSION: Final = FileVersion(1, 2, 3, 4)
DIGEST: Final = bytes(range(32))


def make_snapshot(output: FileVersion | None = VERSION, **keys: Any) -> JobSnapshot:
    record = {"status": "done", "owner": "anna", "outputPath": "film.mp4"} | keys
    job = parse_record("job-1", record, 0)
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


def test_reference_of_every_output_is_replaced(made: RepresentationCache) -> None:
    """A proxy's client resolves references against the URL that it requested."""
    rendered = made.get(make_snapshot(outputPath="film.mp4", metadata={"downloadUrl": "/api/jobs/x"}), None)
    document = orjson.loads(b"".join(rendered.parts_for("job-1", "job-1/")))
    assert document["metadata"] == {"downloadUrl": "/api/jobs/x"}
    assert document["downloadUrl"].startswith("job-1/download?version=")
    assert [output["downloadUrl"] for output in document["outputs"]] == [document["downloadUrl"]]
    assert b"".join(rendered.parts_for("job-1", None)) == rendered.body


def test_outputs_have_absolute_urls_if_there_is_a_public_url() -> None:
    cache = RepresentationCache(public_url="https://render.example.com")
    rendered = cache.get(make_snapshot(outputPath="film.mp4"), None)
    assert rendered.parts_for("job-1", "job-1/") == (rendered.body,)
    (output,) = orjson.loads(rendered.body)["outputs"]
    assert output["downloadUrl"].startswith("https://render.example.com/api/jobs/job-1/download?version=")


def test_changed_directory_is_another_representation(made: RepresentationCache) -> None:
    def rendered_at(mtime_ns: int) -> RenderedJob:
        job = parse_record("job-1", {"status": "done", "owner": "anna", "outputPath": "frames/"}, 0)
        state = OutputState(OutputKind.DIRECTORY, FileVersion(1, 2, mtime_ns, 4))
        packed = pack_states(job.outputs, [state])
        return made.get(JobSnapshot(job, VERSION, None, is_stable=True, outputs=packed), None)

    assert rendered_at(1_000_000_000).etag == rendered_at(1_000_000_000).etag
    assert rendered_at(1_000_000_000).etag != rendered_at(2_000_000_000).etag
    assert orjson.loads(rendered_at(-(2**62)).body)["outputs"][0]["modifiedAt"] == "1823-11-12T00:06:21.572Z"


def test_job_that_is_not_completed_shows_no_outputs(made: RepresentationCache) -> None:
    rendered = made.get(make_snapshot(None, status="failed", outputPath="film.mp4"), None)
    assert "outputs" not in orjson.loads(rendered.body)
