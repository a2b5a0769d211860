from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.job import Job
from jobsvc.domain.large_record import split_record
from jobsvc.domain.outputs import MAX_OUTPUTS, Frames, Output, Role
from jobsvc.domain.status_record import BadRecord, parse_record
from tests.domain.test_status_record import ANY_JSON

FILM = "output/film.mp4"
BEAUTY = {"name": "beauty", "path": "output/beauty.####.exr", "frames": "1001-1100"}
PREVIEW = {"name": "preview", "path": "output/preview.mp4", "role": "preview"}


def parse(outputs: object, output_path: str | None = None, **record: Any) -> Job:
    record |= {"status": "completed", "owner": "anna", "outputs": outputs, "outputPath": output_path}
    return parse_record("job-1", record, 0)


def error_of(outputs: object, output_path: str | None = None) -> str:
    with pytest.raises(BadRecord) as refused:
        parse(outputs, output_path)
    assert refused.value.reason == "outputs"
    return str(refused.value)


def test_outputs_are_kept_in_their_order() -> None:
    assert parse([PREVIEW, BEAUTY]).outputs == (
        Output("preview", "output/preview.mp4", Role.PREVIEW),
        Output("beauty", "output/beauty.####.exr", Role.DATA, Frames(1001, 1100)),
    )


@pytest.mark.parametrize("outputs", [None, []])
def test_output_path_alone_is_the_output_main(outputs: object) -> None:
    job = parse(outputs, FILM)
    assert job.outputs == (Output("main", FILM, Role.MAIN),)
    assert not job.lists_outputs


@pytest.mark.parametrize("output_path", [None, ""])
def test_job_without_a_path_has_no_outputs(output_path: str | None) -> None:
    assert parse(None, output_path).outputs == ()
    assert parse([], output_path).outputs == ()


def test_record_that_repeats_output_path_is_packed_as_if_it_did_not() -> None:
    entry = {"name": "main", "path": FILM, "role": "main"}
    assert parse([entry], FILM) == parse([entry]) == parse(None, FILM)


def test_output_of_role_main_takes_the_place_of_output_path() -> None:
    job = parse([PREVIEW, {**BEAUTY, "role": "main"}])
    assert job.output_path == "output/beauty.####.exr"


def test_output_named_main_is_the_main_one_if_no_role_says_otherwise() -> None:
    job = parse([PREVIEW, {"name": "main", "path": FILM}])
    assert (job.output_path, job.outputs[1].role) == (FILM, Role.MAIN)


def test_outputs_without_a_main_one_leave_output_path_empty() -> None:
    assert parse([PREVIEW, BEAUTY]).output_path is None


def test_output_at_output_path_is_the_main_one() -> None:
    job = parse([PREVIEW, {"name": "film", "path": "./output//film.mp4"}], FILM)
    assert job.outputs[1] == Output("film", "./output//film.mp4", Role.MAIN)
    assert job.output_path == FILM


def test_output_path_that_no_entry_has_comes_first() -> None:
    assert [output.name for output in parse([PREVIEW, BEAUTY], FILM).outputs] == ["main", "preview", "beauty"]


def test_of_outputs_with_one_path_the_one_with_the_role_is_the_main_one() -> None:
    job = parse([{"name": "copy", "path": FILM}, {"name": "film", "path": FILM, "role": "main"}], FILM)
    assert [output.role for output in job.outputs] == [Role.DATA, Role.MAIN]


def test_metadata_is_kept_beside_outputs() -> None:
    job = parse([PREVIEW], metadata={"shot": "op_0010"}, phase="done")
    assert orjson.loads(job.metadata_json or b"") == {"shot": "op_0010"}
    assert (job.details.phase, job.outputs[0].name) == ("done", "preview")
    assert parse([PREVIEW]).metadata_json is None


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ("output/film.mp4", "not a list"),
        ({"name": "a", "path": "a"}, "not a list"),
        (0, "not a list"),
        ([PREVIEW, "a"], "entry 2 is not an object"),
        ([{"path": "a"}], "entry 1 has no name"),
        ([{"name": None, "path": "a"}], "entry 1 has no name"),
        ([{"name": 7, "path": "a"}], "the name of entry 1 is not 1 to 64"),
        ([{"name": "../a", "path": "a"}], "the name of entry 1 is not 1 to 64"),
        ([{"name": "a"}], "'a': path is missing"),
        ([{"name": "a", "path": ""}], "'a': path is missing"),
        ([{"name": "a", "path": ["a"]}], "'a': path is not a string"),
        ([{**PREVIEW, "role": "Main"}], "'preview': role is not one of main, preview, thumbnail, data"),
        ([{"name": "a", "path": "a", "role": ["main"]}], "'a': role is not one of"),
        ([{"name": "a", "path": "a", "frames": "1 to 9"}], "'a': '1 to 9' is not FIRST-LAST"),
        ([{"name": "a", "path": "a", "frames": "9-1"}], "'a': '9-1' ends before it starts"),
        ([{"name": "a", "path": "a", "frames": 7}], "'a': frames is not a string"),
        ([PREVIEW, PREVIEW], "the name 'preview' occurs twice"),
        ([PREVIEW, {**PREVIEW, "name": "Preview"}], "the name 'Preview' occurs twice"),
        ([{**PREVIEW, "role": "main"}, {**BEAUTY, "role": "main"}], "two outputs have the role main"),
        ([{**BEAUTY, "role": "main"}, {"name": "main", "path": "a"}], "'main' is not the main output"),
        ([{"name": "main", "path": "a", "role": "preview"}], "'main' is not the main output"),
    ],
)  # fmt: skip
def test_wrong_outputs_are_a_bad_record_that_names_them(outputs: object, problem: str) -> None:
    assert error_of(outputs).startswith(f"outputs: {problem}")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"name": "main", "path": "output/other.mp4"}, "the name 'main' occurs twice"),
        ({"name": "MAIN", "path": "output/other.mp4"}, "the name 'MAIN' occurs twice"),
        ({**PREVIEW, "role": "main"}, "'preview' has the role main, but is not at outputPath"),
    ],
)  # fmt: skip
def test_main_output_that_is_not_at_output_path_is_a_bad_record(entry: dict[str, str], problem: str) -> None:
    assert error_of([entry], FILM) == f"outputs: {problem}"


def test_number_of_outputs_is_limited() -> None:
    entries = [{"name": f"a{number}", "path": "a"} for number in range(MAX_OUTPUTS)]
    assert len(parse(entries).outputs) == MAX_OUTPUTS
    assert error_of(entries, FILM) == error_of([*entries, PREVIEW]) == "outputs: more than 256 outputs"


@pytest.mark.parametrize("path", ["../up.exr", "/nowhere/a.exr", "a.##.##.exr", "\0", "x" * 5000, "a\nb"])
def test_path_that_leads_nowhere_is_not_a_bad_record(path: str) -> None:
    assert parse([{"name": "a", "path": path}]).outputs[0].path == path


def test_unknown_keys_of_an_output_are_ignored() -> None:
    assert parse([{**PREVIEW, "codec": {"name": "h264"}}]) == parse([PREVIEW])


NAMES = st.sampled_from(["main", "a", "b", "A"]) | ANY_JSON
PATHS = st.sampled_from([FILM, "a/"]) | ANY_JSON
ROLES = st.sampled_from(list(Role)) | ANY_JSON
FRAMES = st.from_regex(r"-?[0-9]-?-?[0-9]") | ANY_JSON
NEAR_ENTRIES = st.fixed_dictionaries(
    {"name": NAMES, "path": PATHS}, optional={"role": ROLES, "frames": FRAMES, "extra": ANY_JSON}
)
NEAR_OUTPUTS = st.lists(NEAR_ENTRIES | ANY_JSON, max_size=4)


@given(outputs=NEAR_OUTPUTS | ANY_JSON, output_path=st.none() | st.sampled_from([FILM, "a", ""]))
def test_any_json_value_is_outputs_or_a_bad_record(outputs: object, output_path: str | None) -> None:
    try:
        job = parse(outputs, output_path)
    except BadRecord:
        return
    mains = [output for output in job.outputs if output.role is Role.MAIN]
    assert len({output.name.lower() for output in job.outputs}) == len(job.outputs)
    assert len(mains) == bool(job.output_path)
    assert all(output.path for output in job.outputs)


@given(outputs=NEAR_OUTPUTS | ANY_JSON)
def test_large_record_has_the_same_outputs_as_a_small_one(outputs: object) -> None:
    record = {"status": "completed", "owner": "anna", "outputs": outputs}
    split = orjson.loads(split_record(json.dumps(record).encode()).record)

    def outcome(record: object) -> object:
        try:
            return parse_record("job-1", record, 0)
        except BadRecord as refused:
            return str(refused)

    assert outcome(split) == outcome(record)


def test_large_record_is_split_into_bounded_outputs() -> None:
    entries = [{"name": f"a{number}", "path": "a", "extra": [[]] * 100} for number in range(1000)]
    record = orjson.dumps({"status": "completed", "owner": "anna", "outputs": entries})
    assert len(split_record(record).record) < 10_000
