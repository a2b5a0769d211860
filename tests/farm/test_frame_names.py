"""The writer takes the same files for the frames of a sequence as the service does."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from jobsvc.domain.outputs import sequence_pattern
from jobsvc.farm import _frame_parser

PATTERNS = st.sampled_from(
    ["a.####.exr", "@@.png", "a_%04d", "%d.png", "a$F4.b", "$F", "#", "a#b#", "film.mp4"]
)
NUMBERS = st.from_regex(r"-{0,2}[0-9]{0,20}", fullmatch=True)


@given(PATTERNS, NUMBERS, st.sampled_from(["", "x"]))
@example("a.####.exr", "-001", "")
@example("a.####.exr", "00001", "")
@example("#", "-1", "")
def test_frame_number_is_that_of_the_service(pattern: str, number: str, extra: str) -> None:
    name = pattern
    for placeholder in ("####", "@@", "%04d", "%d", "$F4", "$F", "#"):
        name = name.replace(placeholder, number, 1)
    service, writer = sequence_pattern(pattern), _frame_parser(pattern)
    assert (service is None) == (writer is None)
    if service is not None and writer is not None:
        assert writer(name + extra) == service.frame_of(name + extra)
