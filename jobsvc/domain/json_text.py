"""Find the text of one member's value in a JSON object, with numbers and escapes as they were written.

Only for JSON (RFC 8259) that a parser has accepted; for other text the result is meaningless. No I/O.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

Span = tuple[int, int]
"""Start and end of a value in the text, in bytes."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SCALAR: Final = rb"(?:" + _STRING + rb'|[^"\[\]{},\s]++)'
_FAST_DEPTH: Final = 8
"""Levels of arrays and objects that one match covers; deeper ones need several matches."""


def _nested(depth: int) -> bytes:
    inner = b"|" + _nested(depth - 1) if depth > 1 else b""
    return rb'[\[{](?:[^"\[\]{}]++|' + _STRING + inner + rb")*+[\]}]"


_CONTAINER: Final = _nested(_FAST_DEPTH)
_VALUE: Final = rb"(?:" + _SCALAR + rb"|" + _CONTAINER + rb")"
_BRACKET: Final = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb"|" + _CONTAINER + rb")*+[\[\]{}]", re.DOTALL)
"""Matches up to the next bracket of an array or object that is deeper than _FAST_DEPTH."""
_OPENING: Final = b"[{"
_START: Final = re.compile(rb"\s*+\{")
_NEXT: Final = re.compile(rb"\s*+,")
_SPACE: Final = b" \t\r\n"


class MemberText:
    """Finds the values of one member, whose name consists of ASCII letters."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._quoted = f'"{name}"'.encode()
        wanted = self._quoted + rb"\s*+:\s*+\{"
        others = rb"(?:(?!" + wanted + rb")" + _STRING + rb"\s*+:\s*+" + _VALUE + rb"\s*+,\s*+)*+"
        self._before = re.compile(rb"\s*+\{\s*+" + others + self._quoted, re.DOTALL)
        """Matches up to the end of the name of the first member of this name whose value is an object."""
        self._value = re.compile(rb"\s*+:\s*+(?=\{)" + _CONTAINER, re.DOTALL)
        self._again = re.compile(self._quoted + rb"|\\u00[4-7]")
        """Matches the same name, or an escape that can be part of it (a letter is U+0041 to U+007A)."""
        plain = rb"\s*+(?!" + self._quoted + rb')"[^"\\]*+"\s*+:\s*+' + _VALUE + rb"\s*+,"
        named, value = rb"\s*+(" + _STRING + rb")\s*+:\s*+", rb"(" + _VALUE + rb")?+"
        self._member = re.compile(rb"(?:" + plain + rb")*+" + named + value, re.DOTALL)
        """Matches up to the next member that can have this name: its name, and its value if not too deep."""

    def last_object(self, text: bytes) -> bytes | None:
        """Return the last value of the member, the one that a parser keeps; None if it is not an object.

        `text` must be a JSON object.
        """
        value = self._value.match(text, self._name_end(text))
        if value is not None and self._again.search(text, value.end()) is None:
            return text[text.index(b"{", value.start()) : value.end()]
        spans = self.spans(text)
        last = text[slice(*spans[-1])] if spans else b""
        return last if last.startswith(b"{") else None

    def _name_end(self, text: bytes) -> int:
        """Return the end of the member's first name whose value can be an object; 0 if not found."""
        start = text.find(self._quoted)
        before = text[: max(start, 0)]
        # Without nesting or escapes before it, and outside a string, it is a member of the record itself.
        if (
            before.count(b"{") == 1
            and b"[" not in before
            and b"\\" not in before
            and not before.count(b'"') % 2
        ):
            return start + len(self._quoted)
        match = self._before.match(text)
        return 0 if match is None else match.end()

    def spans(self, text: bytes) -> list[Span]:
        """Return the spans of all values of the member; `text` must be a JSON object, of any depth."""
        spans: list[Span] = []
        comma = _START.match(text)
        while comma is not None:
            member = self._member.match(text, comma.end())
            if member is None:
                break
            start, end = member.span(2) if member[2] else (member.end(), _deep_end(text, member.end()))
            if self._is_name(member[1]):
                spans.append((start, end))
            comma = _NEXT.match(text, end)
        return spans

    def _is_name(self, key: bytes) -> bool:
        if b"\\" not in key:
            return key == self._quoted
        try:
            return bool(orjson.loads(key) == self._name)
        except orjson.JSONDecodeError:  # a lone surrogate
            return False


def _deep_end(text: bytes, start: int) -> int:
    """Return the end of an array or object that is deeper than _FAST_DEPTH."""
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += 1 if text[bracket.end() - 1] in _OPENING else -1
        if depth == 0:
            return bracket.end()
    return len(text)


def on_one_line(text: bytes) -> bytes:
    """Remove line breaks and the whitespace around them; in JSON strings they occur only as escapes."""
    if b"\n" not in text and b"\r" not in text:
        return text
    return b"".join([line.strip(_SPACE) for line in text.splitlines()])
