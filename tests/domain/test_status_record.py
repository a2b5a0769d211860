from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobsvc.domain.job import SYNONYMS, Job, Status
from jobsvc.domain.status_record import BadRecord, parse_record
from jobsvc.domain.timestamp import format_time, parse_time

FILE_TIME = 1_767_225_600_123_456  # 2026-01-01T00:00:00.123456Z
NEEDED = {"status": "queued", "owner": "anna"}
TEXT_KEYS = ("projectPath", "outputPath", "logPath", "error", "phase")
TIME_KEYS = ("createdAt", "updatedAt", "startedAt", "completedAt", "estimatedCompletionAt")
COUNT_KEYS = ("framesDone", "framesTotal", "attempt")
OPTIONAL_KEYS = ("id", "progress", "outputs", "metadata", *TEXT_KEYS, *TIME_KEYS, *COUNT_KEYS)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(**record: Any) -> Job:
    return parse_record("job-1", NEEDED | record, FILE_TIME)


# Any value -------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
NEAR_TIMES = st.from_regex(
    r"\A[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][012][0-9]:[0-5][0-9]:[0-6][0-9]"
    r"(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
LIKELY = st.sampled_from([*SYNONYMS, "job-1", "anna", "output/film.mp4"]) | NEAR_TIMES | ANY_JSON
NEAR_RECORDS = st.fixed_dictionaries(
    {"status": st.sampled_from(sorted(SYNONYMS)) | LIKELY, "owner": st.just("anna") | LIKELY},
    optional=dict.fromkeys(OPTIONAL_KEYS, LIKELY),
)


@given(record=ANY_JSON | NEAR_RECORDS)
@example(record={**NEEDED, "createdAt": "0001-01-01T00:00:00+23:59"})
@example(record={**NEEDED, "createdAt": "9999-12-31T23:59:60-23:59"})
@example(record={**NEEDED, "attempt": 1e308})
def test_any_json_value_is_a_job_or_a_bad_record(record: object) -> None:
    try:
        job = parse_record("job-1", record, FILE_TIME)
    except BadRecord:
        return
    assert job.id == "job-1"
    assert job.owner
    assert job.status in Status
    assert 0 <= job.progress <= 100


@given(file_time=st.integers(-(2**63) * 10**6, 2**63 * 10**6))
def test_any_file_time_that_a_disk_can_store_is_accepted(file_time: int) -> None:
    """The clock of a render node may be anywhere: mtime is any 64-bit number of seconds."""
    job = parse_record("job-1", NEEDED, file_time)
    for text, order in ((job.created_at, job.created_order), (job.updated_at, job.updated_order)):
        assert 0 <= order - parse_time(text) < 1000


def test_instance_of_a_subclass_of_str_is_a_string() -> None:
    assert parse_record("job-1", {**NEEDED, "status": Status.QUEUED}, FILE_TIME).status is Status.QUEUED


@pytest.mark.parametrize("record", [None, [], "", 0, [NEEDED], True])
def test_only_an_object_is_a_record(record: object) -> None:
    with pytest.raises(BadRecord, match="not an object"):
        parse_record("job-1", record, FILE_TIME)


# Needed keys -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["status", "owner"])
@pytest.mark.parametrize("value", [None, ""])
def test_missing_required_key_is_named(key: str, value: str | None) -> None:
    with pytest.raises(BadRecord, match=f"{key}: missing"):
        parse(**{key: value})
    with pytest.raises(BadRecord, match=f"{key}: missing"):
        parse_record("job-1", {other: "queued" for other in NEEDED if other != key}, FILE_TIME)


def test_id_other_than_the_directory_name_is_refused() -> None:
    assert parse(id="job-1").id == "job-1"
    assert parse(id=None).id == "job-1"
    for other in ("job-2", "JOB-1", "job-1 ", ""):
        with pytest.raises(BadRecord, match="id: differs"):
            parse(id=other)


@pytest.mark.parametrize("key", ["id", "status", "owner", *TEXT_KEYS, *TIME_KEYS])
@pytest.mark.parametrize("value", [0, 1.5, True, [], {}])
def test_value_that_should_be_text_is_named(key: str, value: object) -> None:
    with pytest.raises(BadRecord, match=f"{key}: not a string"):
        parse(**{key: value})


# Status ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, "queued") for word in ("queued", "pending", "waiting", "created")),
        *((word, "rendering") for word in ("rendering", "running", "active", "in_progress", "processing")),
        *((word, "completed") for word in ("completed", "done", "finished", "success", "succeeded")),
        *((word, "failed") for word in ("failed", "error", "errored")),
        *((word, "canceled") for word in ("canceled", "cancelled", "aborted")),
    ],
)
def test_status_word_maps_to_a_state_and_is_kept_if_it_differs(word: str, status: str) -> None:
    assert (parse(status=word).status, parse(status=word).details.source_status) == (
        status,
        None if word == status else word,
    )
    shouted = parse(status=word.upper())
    assert (shouted.status, shouted.details.source_status) == (status, word.upper())


def test_no_other_status_word_is_known() -> None:
    assert len(SYNONYMS) == 4 + 5 + 5 + 3 + 3
    for word in ("paused", "que", "queued ", "done!", "x" * 1000):
        with pytest.raises(BadRecord, match="is not a known status") as refused:
            parse(status=word)
        assert len(str(refused.value)) < 100


def test_status_alias_is_used() -> None:
    aliases = {**SYNONYMS, "paused": Status.QUEUED}
    job = parse_record("job-1", NEEDED | {"status": "Paused"}, FILE_TIME, aliases)
    assert (job.status, job.details.source_status) == (Status.QUEUED, "Paused")


def test_completed_failed_and_canceled_jobs_are_final() -> None:
    assert {status.value: status.final for status in Status} == {
        "queued": False, "rendering": False, "completed": True, "failed": True, "canceled": True,
    }  # fmt: skip


# Times -----------------------------------------------------------------------

OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moment=st.datetimes(timezones=OFFSETS), separator=st.sampled_from("Tt "))
def test_parse_time_agrees_with_datetime(moment: datetime, separator: str) -> None:
    assert parse_time(moment.isoformat(sep=separator)) == (moment - EPOCH) // timedelta(microseconds=1)


@given(moment=st.datetimes(), zulu=st.sampled_from("Zz"))
def test_z_is_utc(moment: datetime, zulu: str) -> None:
    text = moment.isoformat()
    assert parse_time(text + zulu) == parse_time(text + "+00:00") == parse_time(text + "-00:00")


@given(
    micros=st.integers(-62_135_596_800_000, 253_402_300_799_999).map(lambda milliseconds: milliseconds * 1000)
)
def test_formatted_time_is_parsed_back_to_the_millisecond(micros: int) -> None:
    text = format_time(micros)
    assert len(text) == len("2026-01-01T00:00:00.000Z")
    assert parse_time(text) == micros
    assert format_time(micros + 999) == text


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.5Z", 500_000),
        ("1970-01-01T00:00:00.0000019Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1990-12-31T23:59:60Z", 662_687_999_999_999),  # RFC 3339, section 5.8
        ("1990-12-31T15:59:60-08:00", 662_687_999_999_999),
        ("1990-12-31T23:59:60.25Z", 662_687_999_999_999),
        ("1937-01-01T12:00:27.87+00:20", -1_041_337_172_130_000),
    ],
)
def test_times_of_rfc_3339_are_parsed(text: str, micros: int) -> None:
    assert parse_time(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00Z", "2026-01-01T00:00:00.Z",
        "20260101T000000Z", "2026-1-1T00:00:00Z", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z",
        "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+00:60", "2026-01-01T00:00:00-01:99",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z\n", " 2026-01-01T00:00:00Z", "2026-01-01T00:00:00,5Z", "+2026-01-01T00:00:00Z",
        "٢٠٢٦-01-01T00:00:00Z", "2026-W01-1T00:00:00Z", "1767225600",
    ],
)  # fmt: skip
def test_invalid_time_is_refused_and_its_key_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|out of range|must be"):
        parse_time(text)
    with pytest.raises(BadRecord, match="createdAt: "):
        parse(createdAt=text)


def test_quoted_invalid_time_is_shortened() -> None:
    with pytest.raises(BadRecord) as refused:
        parse(updatedAt="x" * 100_000)
    assert len(str(refused.value)) < 120


def test_times_are_kept_except_for_t_and_z_and_ordered_by_value() -> None:
    job = parse(
        createdAt="1970-01-01T01:00:00+01:00",
        updatedAt="1970-01-01T00:00:01Z",
        startedAt="1970-01-01t00:00:00z",
    )
    assert (job.created_at, job.created_order) == ("1970-01-01T01:00:00+01:00", 0)
    assert (job.updated_at, job.updated_order) == ("1970-01-01T00:00:01Z", 1_000_000)
    assert (job.details.started_at, job.details.completed_at) == ("1970-01-01T00:00:00Z", None)


def test_missing_times_are_those_of_the_file() -> None:
    job = parse()
    assert job.created_at == job.updated_at == "2026-01-01T00:00:00.123Z"
    assert job.created_order == job.updated_order == FILE_TIME
    assert job.details.started_at is None


def test_completed_at_defaults_to_the_last_update() -> None:
    updated, completed = "2026-01-02T00:00:00Z", "2026-01-01T12:00:00Z"
    assert parse(status="done").details.completed_at == "2026-01-01T00:00:00.123Z"
    assert parse(status="done", updatedAt=updated).details.completed_at == updated
    assert parse(status="done", updatedAt=updated, completedAt=completed).details.completed_at == completed
    for status in ("queued", "rendering", "failed", "canceled"):
        assert parse(status=status, updatedAt=updated).details.completed_at is None
        assert parse(status=status, completedAt=completed).details.completed_at == completed


# Numbers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "progress"),
    [
        ({}, 0),
        ({"progress": 12.5}, 12.5),
        ({"progress": 0}, 0),
        ({"progress": -3}, 0),
        ({"progress": 100.0001}, 100),
        ({"progress": 1e300}, 100),
        ({"progress": None, "framesDone": 1, "framesTotal": 3}, 33),
        ({"framesTotal": 3}, 0),
        ({"framesDone": 3}, 0),
        ({"framesDone": 3, "framesTotal": 3}, 99),
        ({"framesDone": 4, "framesTotal": 3}, 99),
        ({"status": "failed", "framesDone": 3, "framesTotal": 3}, 99),
        ({"progress": 100, "framesDone": 3, "framesTotal": 3}, 100),
        ({"framesDone": 4, "framesTotal": 0}, 0),
        ({"progress": 7, "framesDone": 1, "framesTotal": 2}, 7),
        ({"status": "failed", "progress": 40}, 40),
        ({"status": "completed", "progress": 99}, 100),
        ({"status": "completed"}, 100),
    ],
)
def test_progress_is_given_or_computed_from_frames_and_100_when_completed(
    record: dict[str, Any], progress: float
) -> None:
    assert parse(**record).progress == progress


@pytest.mark.parametrize("key", ["progress", *COUNT_KEYS])
@pytest.mark.parametrize("value", ["1", True, False, [], {}])
def test_value_that_should_be_a_number_is_named(key: str, value: object) -> None:
    with pytest.raises(BadRecord, match=f"{key}: not a number"):
        parse(**{key: value})


@pytest.mark.parametrize("key", COUNT_KEYS)
@pytest.mark.parametrize("value", [-1, 0.5, 2**53, 1e300, -1e300])
def test_count_that_is_not_a_non_negative_integer_is_named(key: str, value: float) -> None:
    with pytest.raises(BadRecord, match=f"{key}: not a non-negative integer"):
        parse(**{key: value})


def test_counts_are_integers() -> None:
    job = parse(framesDone=2.0, framesTotal=2**53 - 1, attempt=0)
    assert (job.details.frames_done, job.details.frames_total, job.details.attempt) == (2, 2**53 - 1, 0)
    assert isinstance(job.details.frames_done, int)


# The rest --------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        b"{}",
        b'{"a": 1.0, "a": 1, "big": 123456789012345678901234567890, "e": 1E+2, "zero": -0.0}',
        b'{"text": "\\u00e9\\/\\ud83d\\ude00"}',
        b'{"deep": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
def test_metadata_is_kept_as_written(metadata: bytes) -> None:
    text = b'{"status": "queued", "metadata": ' + metadata + b', "owner": "anna"}'
    assert parse_record("job-1", orjson.loads(text), FILE_TIME, text=text).metadata_json == metadata


def test_metadata_of_many_lines_is_kept_on_one() -> None:
    text = (
        json.dumps(NEEDED | {"metadata": {"shot": ["a b", {"n": 1}]}}, indent=4)
        .replace("\n", "\r\n")
        .encode()
    )
    job = parse_record("job-1", orjson.loads(text), FILE_TIME, text=text)
    assert job.metadata_json == b'{"shot": ["a b",{"n": 1}]}'


@pytest.mark.parametrize("value", ["text", 1, True, []])
def test_metadata_that_is_not_an_object_is_refused(value: object) -> None:
    with pytest.raises(BadRecord, match="metadata: not an object"):
        parse(metadata=value)


@given(keys=st.sets(st.sampled_from(OPTIONAL_KEYS)))
def test_null_equals_a_missing_key(keys: set[str]) -> None:
    assert parse(**dict.fromkeys(keys)) == parse()


def test_every_known_key_is_stored_and_unknown_ones_are_ignored() -> None:
    time = "2026-01-01T00:00:00Z"
    job = parse(
        **{key: f"the {key}" for key in TEXT_KEYS}, **dict.fromkeys(TIME_KEYS, time),
        progress=50, framesDone=1, framesTotal=2, attempt=3, metadata={"shot": "010"}, colour="blue",
    )  # fmt: skip
    expected = {
        "id": "job-1", "owner": "anna", "status": Status.QUEUED, "progress": 50, "created_at": time,
        "updated_at": time, "created_order": parse_time(time), "updated_order": parse_time(time),
        "output_path": "the outputPath", "metadata_json": b'{"shot":"010"}',
    }  # fmt: skip
    assert {name: getattr(job, name) for name in expected} == expected
    assert job.details._asdict() == {
        "source_status": None, "project_path": "the projectPath", "log_path": "the logPath",
        "started_at": time, "completed_at": time, "estimated_completion_at": time,
        "error": "the error", "phase": "the phase", "frames_done": 1, "frames_total": 2, "attempt": 3,
    }  # fmt: skip


@pytest.mark.parametrize("length", [10, 10_000])
def test_details_of_any_size_are_unpacked(length: int) -> None:
    job = parse(status="failed", error="e" * length, phase="beauty")
    assert (job.details.error, job.details.phase) == ("e" * length, "beauty")
