"""The JSON Schema of status.json accepts what the parser accepts, but for rules that it cannot state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobsvc.domain.job import SYNONYMS
from jobsvc.domain.outputs import Role
from jobsvc.domain.status_record import KEYS, BadRecord, parse_record
from jobsvc.domain.status_schema import SCHEMA

ROOT: Final = Path(__file__).parents[2]
VALIDATOR: Final = jsonschema_rs.Draft202012Validator(SCHEMA, validate_formats=True)
TIMES: Final = (
    "2026-11-20T09:16:31Z",
    "2026-11-20T18:16:31.25+09:00",
    "2026-13-20T09:16:31Z",
    "yesterday",
    "",
    7,
)
OUTPUTS: Final = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["main", "a", "B2", "", "-x", "x" * 65, None, 3]),
            "path": st.sampled_from(["a.exr", "b.####.exr", "", None, 3]),
            "role": st.sampled_from([*Role, "other", "", None, 3]),
            "frames": st.sampled_from(["1-5", "7", "-5-10", "1-", "x", None, 3]),
            "more": st.just(1),
        },
    )
    | st.sampled_from([None, "a"]),
    max_size=2,
)
VALUES: Final[st.SearchStrategy[Any]] = st.sampled_from(
    [None, "", "text", 0, 1, -1, 1.5, 2**53 - 1, 2**53, 1e300, True, [], {}, {"a": 1}]
)
RECORDS: Final[st.SearchStrategy[Any]] = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(KEYS, VALUES)
    | {key: st.sampled_from([*TIMES, None]) for key in KEYS if key.endswith("At")}
    | {
        "status": st.sampled_from([*SYNONYMS, "unknown", "", None, 1]),
        "owner": st.sampled_from(["acme", "", None, 1]),
        "id": st.sampled_from(["title", None, 1]),
        "outputs": OUTPUTS | VALUES,
        "more": VALUES,
    },
) | st.sampled_from([[], "text", None, 1])
NOT_IN_A_SCHEMA: Final = ("twice", "two outputs", "ends before it starts", "role main, but", "more than")


def is_parsed(record: object) -> bool:
    try:
        parse_record("title", record, 0)
    except BadRecord as error:
        return any(text in str(error) for text in NOT_IN_A_SCHEMA)
    return True


@settings(max_examples=1000)
@given(RECORDS)
@example({"status": "queued", "owner": "acme"})
def test_schema_and_parser_agree(record: object) -> None:
    assert VALIDATOR.is_valid(record) == is_parsed(record)


def test_schema_names_the_keys_and_words_of_the_parser() -> None:
    assert set(SCHEMA["properties"]) == set(KEYS)
    assert set(SCHEMA["properties"]["status"]["enum"]) == set(SYNONYMS)
    assert set(SCHEMA["$defs"]["output"]["properties"]["role"]["enum"]) == {*Role, None}


def examples() -> list[Any]:
    """Return the records in the documentation and in the sample jobs."""
    text = (ROOT / "docs" / "job-directory.md").read_text("utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```json\n")[1:]]
    samples = [path.read_text("utf-8") for path in sorted((ROOT / "sample_jobs").glob("*/status.json"))]
    return [json.loads(record) for record in blocks + samples]


@pytest.mark.parametrize("record", examples(), ids=lambda record: record.get("id", "example"))
def test_example_is_valid(record: object) -> None:
    VALIDATOR.validate(record)
