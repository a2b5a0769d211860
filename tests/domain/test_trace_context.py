from __future__ import annotations

import pytest

from jobsvc.domain.trace_context import trace_id_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.mark.parametrize(
    "field",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-ff",
        f" 00-{TRACE}-{PARENT}-00\t",
        f"cc-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    ],
)
def test_trace_id_of_a_valid_field(field: str) -> None:
    assert trace_id_of([field]) == TRACE


@pytest.mark.parametrize(
    "field",
    [
        "",
        TRACE,
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-",
        f"00-{TRACE}-{PARENT}-01-more",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"ff-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0g",
        f"00-{TRACE}0-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"\u0660\u0660-{TRACE}-{PARENT}-01",
    ],
)
def test_invalid_field_is_ignored(field: str) -> None:
    assert trace_id_of([field]) is None


def test_several_fields_are_ignored() -> None:
    assert trace_id_of([f"00-{TRACE}-{PARENT}-01"] * 2) is None
    assert trace_id_of([]) is None
