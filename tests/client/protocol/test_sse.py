"""The parser of server-sent events against HTML, section 9.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client.errors import UnexpectedResponse
from jobsvc.client.protocol import sse
from jobsvc.client.protocol.sse import Event, EventParser

TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
EVENT = st.builds(Event, TEXT, st.lists(TEXT, min_size=1).map("\n".join), st.none() | TEXT)
LINE_END = st.sampled_from([b"\n", b"\r", b"\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draw a stream of events with comments, unknown fields and any line ends."""
    lines: list[str] = []
    for event in draw(st.lists(EVENT, max_size=5)):
        extra = [f"event: {event.name}", *([] if event.id is None else [f"id: {event.id}"])]
        noise = draw(st.lists(st.sampled_from([":", ": comment", "unknown: field", "unknown", "retry: x"])))
        lines += [
            *draw(st.permutations([*extra, *noise])),
            *(f"data: {x}" for x in event.data.split("\n")),
            "",
        ]
        lines += draw(st.lists(st.sampled_from(["", ":"]), max_size=2))
    return b"".join(line.encode() + draw(LINE_END) for line in lines)


@given(streams(), st.data())
def test_result_does_not_depend_on_where_the_bytes_are_split(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    parser, whole = EventParser(), EventParser()
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert [event for piece in pieces for event in parser.feed(piece)] == whole.feed(sent)
    assert parser.last_event_id == whole.last_event_id


@given(st.lists(EVENT), st.sampled_from(["\n", "\r", "\r\n"]))
def test_what_was_formatted_is_parsed(events: list[Event], line_end: str) -> None:
    text = ""
    for event in events:
        lines = [f"event: {event.name}", *(f"data: {line}" for line in event.data.split("\n"))]
        if event.id is not None:
            lines.append(f"id:{' ' if event.id.startswith(' ') else ''}{event.id}")
        text += line_end.join([*lines, "", ""])
    assert EventParser().feed(text.encode()) == [
        event._replace(name=event.name or "message") for event in events
    ]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        # The examples of the standard.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("message", "YHOO\n+2\n10", None)]),
        (b": test stream\n\ndata: first event\nid: 1\n\n", [Event("message", "first event", "1")]),
        (b"data:second event\nid\n\n", [Event("message", "second event", "")]),
        (b"data:  third event\n\n", [Event("message", " third event", None)]),
        (b"data\n\ndata\ndata\n\ndata:", [Event("message", "", None), Event("message", "\n", None)]),
        (b"data:test\n\ndata: test\n\n", [Event("message", "test", None)] * 2),
        (
            b"\xef\xbb\xbfdata: after the byte order mark\n\n",
            [Event("message", "after the byte order mark", None)],
        ),
        (b"data: \xff\n\n", [Event("message", "\ufffd", None)]),
        (b"event: name without data\n\ndata: x\n\n", [Event("message", "x", None)]),
        (b"data: a\x0b\x0c\x1c\xc2\x85b\n\n", [Event("message", "a\x0b\x0c\x1c\x85b", None)]),
    ],
)
def test_examples(sent: bytes, expected: list[Event]) -> None:
    assert EventParser().feed(sent) == expected
    parser = EventParser()
    assert [event for byte in sent for event in parser.feed(bytes([byte]))] == expected


def test_event_that_is_cut_does_not_count() -> None:
    parser = EventParser("1")
    assert parser.feed(b"data: x\nid: 2\n") == []
    assert parser.last_event_id == "1"
    parser.feed(b"\n")
    assert parser.last_event_id == "2"


def test_id_without_an_event_is_the_last_one() -> None:
    parser = EventParser()
    assert parser.feed(b"id: 7\n\n") == []
    assert parser.last_event_id == "7"


def test_event_without_an_id_leaves_the_last_one() -> None:
    parser = EventParser()
    parser.feed(b"id: 7\ndata: x\n\ndata: y\n\n")
    assert parser.last_event_id == "7"


def test_id_with_a_null_character_is_ignored() -> None:
    assert EventParser().feed(b"id: a\0b\ndata: x\n\n") == [Event("message", "x", None)]


@pytest.mark.parametrize(("field", "seconds"), [(b"2000", 2.0), (b"+1", None), (b"1.5", None), (b"", None)])
def test_retry_is_digits(field: bytes, seconds: float | None) -> None:
    parser = EventParser()
    parser.feed(b"retry: %b\n\n" % field)
    assert parser.retry_s == seconds


def test_event_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_BODY", 1 << 20)
    parser = EventParser()
    for _ in range(1024):
        parser.feed(b"x" * 1024)
    with pytest.raises(UnexpectedResponse):
        parser.feed(b"x")


def test_many_events_are_not_one_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_BODY", 1 << 10)
    parser = EventParser()
    assert sum(len(parser.feed(b"data: 0123456789\n\nda" if n % 2 else b"ta: 0\n\n")) for n in range(1000))
