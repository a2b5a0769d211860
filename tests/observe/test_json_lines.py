from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from jobsvc.observe.json_lines import encode


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda of: st.dictionaries(st.text(), of) | st.lists(of),
    )
)
def test_any_value_is_one_line_that_can_be_parsed(value: object) -> None:
    line = encode(value)
    assert b"\n" not in line
    assert json.loads(line) == value


def test_name_that_is_not_utf_8_and_a_huge_number_are_kept() -> None:
    assert (
        encode({"file": "\udcff.mp4", "n": 2**70}) == b'{"file": "\\udcff.mp4", "n": 1180591620717411303424}'
    )


def test_value_without_a_json_form_is_its_repr() -> None:
    assert encode({"what": b"\xff"}) == b'{"what":"b\'\\\\xff\'"}'
    assert encode({"what": b"\xff", "n": 2**70}) == b'{"what": "b\'\\\\xff\'", "n": 1180591620717411303424}'
