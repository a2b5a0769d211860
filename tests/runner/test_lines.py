"""Output of a renderer is split into lines, whatever pieces it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.runner import command
from jobsvc.runner.command import Line, LineSplitter


def split(*pieces: bytes) -> list[Line]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + list(splitter.end())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\ntwo\n", [("one", False), ("two", False)]),
        (b"one\r\ntwo\r\n", [("one", False), ("two", False)]),
        (b"10 %\r20 %\rdone\n", [("10 %", True), ("20 %", True), ("done", False)]),
        (b"10 %\r20 %\r\n", [("10 %", True), ("20 %", False)]),
        (b"no end", [("no end", False)]),
        (b"\n\n", [("", False), ("", False)]),
        (b"\xff\n", [("\ufffd", False)]),
        (b"", []),
    ],
)
def test_lines_and_progress_lines(data: bytes, expected: list[tuple[str, bool]]) -> None:
    assert split(data) == [Line(*line) for line in expected]


def test_progress_line_is_passed_on_when_the_next_begins() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"10 %\r")) == []
    assert list(splitter.feed(b"20 %")) == [Line("10 %", is_replaced=True)]


def test_line_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_LINE", 100)
    assert "".join(line.text for line in split(*[b"x" * 30] * 20)) == "x" * 600


@given(st.lists(st.binary(max_size=12)), st.data())
def test_pieces_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(part + data.draw(st.sampled_from([b"\n", b"\r", b"\r\n", b""])) for part in parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(*pieces) == split(text)
