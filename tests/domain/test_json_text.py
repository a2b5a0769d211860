"""The text of a member's value, compared with the result of a parser."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.json_text import on_one_line
from jobsvc.domain.record_decoding import METADATA, decode_record


class Members(list[Any]):
    """The members of an object in order; a name may occur more than once."""


TEXT: Final = st.text(max_size=8) | st.sampled_from(
    ['"metadata"', "metadata", '{"', "]}", "\\", '\\"', "a:{"]
)
SCALAR: Final = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
KEY: Final = st.sampled_from(["metadata", "status", "outputs", "metadat", '"metadata"']) | TEXT
VALUE: Final = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(KEY, inner), max_size=3).map(Members),
)
SPACES: Final = ("", " ", "\n", "\r\n  ", "\t")
FORMS: Final = st.randoms(use_true_random=True)
"""Chooses among forms; drawing each choice from Hypothesis takes three times as long."""


def write(value: object, forms: Random) -> str:
    """Write JSON in one of many equivalent forms."""
    space = forms.choice(SPACES)
    if isinstance(value, Members):
        members = (f"{write(name, forms)}{space}:{write(inner, forms)}" for name, inner in value)
        text = f"{{{space}{f'{space},'.join(members)}{space}}}"
    elif isinstance(value, list):
        text = f"[{space}{f',{space}'.join(write(inner, forms) for inner in value)}{space}]"
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=forms.choice((False, True)))
        if forms.choice((False, True)):
            text = f'"{"".join(f"{chr(92)}u{ord(char):04x}" if char < "~" else char for char in value)}"'
    else:
        text = json.dumps(value)
    return forms.choice(SPACES) + text


class Exact(str):
    """A number as written."""

    __slots__ = ()


def exactly(text: str | bytes) -> Any:
    """Parse with numbers as written and all members in order."""
    return json.loads(text, parse_int=Exact, parse_float=Exact, object_pairs_hook=Members)


@settings(max_examples=400)
@given(FORMS, st.lists(st.tuples(KEY, VALUE), max_size=6).map(Members))
def test_last_value_of_the_member_is_found_as_it_is_written(forms: Random, record: Members) -> None:
    text = write(record, forms).encode("utf-8", "surrogatepass")
    values = [value for name, value in exactly(text) if name == "metadata"]
    spans = METADATA.spans(text)
    assert [exactly(text[start:end]) for start, end in spans] == values
    found = METADATA.last_object(text)
    if values and isinstance(values[-1], Members):
        assert found == text[slice(*spans[-1])]
    else:
        assert found is None


@given(FORMS, VALUE)
def test_only_whitespace_is_removed_on_one_line(forms: Random, value: object) -> None:
    text = write(value, forms).encode("utf-8", "surrogatepass")
    line = on_one_line(text)
    assert b"\n" not in line
    assert b"\r" not in line
    assert exactly(line) == exactly(text)


@pytest.mark.parametrize("depth", [1, 7, 8, 9, 10, 254, 255, 900])
@pytest.mark.parametrize("before", ["", '"outputs": [{"name": "a"}], ', '"x": "\\"metadata\\": {", '])
def test_value_is_found_at_any_depth(depth: int, before: str) -> None:
    value = '{"a":[' * (depth // 2) + "{}" + "]}" * (depth // 2)
    assert METADATA.last_object(f'{{{before}"metadata": {value} , "b": 1}}'.encode()) == value.encode()


@pytest.mark.parametrize(
    "metadata",
    ['{"a": 1e400}', '{"a": "\\ud800"}', '{"a": -1E+999, "b": [1.0, 1]}', '{"a": ' + "9" * 5000 + "}"],
)
def test_metadata_that_the_parser_refuses_does_not_make_the_record_unreadable(metadata: str) -> None:
    text = f'{{"status": "queued", "metadata": {metadata}, "owner": "anna"}}'.encode()
    record = decode_record(text)
    assert isinstance(record, dict)
    assert {**record, "metadata": None} == {"status": "queued", "metadata": None, "owner": "anna"}
    assert METADATA.last_object(text) == metadata.encode()


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b'{"metadata": {}', b'{"metadata": {"a": NaN}}', b'{"metadata": {"a": Infinity}}',
        b'{"metadata": {"a": 01}}', b'{"metadata": {"a": "\xff"}}', b"\xef\xbb\xbf{}",
        b'{"error": "\\ud800", "metadata": {}}', b'{"progress": 1e400}', b'[{"metadata": {"a": 1e400}}]',
        b'{"metadata": ' + b'{"a":' * 3000 + b"{}" + b"}" * 3001, b'{"metadata": {"a": "\n"}}',
    ],
)  # fmt: skip
def test_what_is_not_json_or_cannot_be_shown_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        decode_record(text)


def test_half_a_surrogate_pair_is_not_a_member_name() -> None:
    assert METADATA.spans(b'{"\\ud800": 1, "metadata": {"a": 1}}') == [(26, 34)]


def test_unterminated_array_extends_to_the_end_of_the_text() -> None:
    text = b'{"metadata": ' + b"[" * 40
    assert METADATA.spans(text) == [(13, len(text))]


def test_record_decoded_without_its_metadata_may_contain_it_twice() -> None:
    assert decode_record(b'{"metadata": 5, "metadata": {"a": 1e400}, "b": 1}') == {"metadata": {}, "b": 1}
