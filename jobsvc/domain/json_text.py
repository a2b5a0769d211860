"""The text of one member's value in a JSON object, with numbers and escapes as they were written.

For JSON (RFC 8259) that a parser has accepted; what is found in anything else means nothing. Pure.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

Span = tuple[int, int]
"""Where a value begins and ends in the text, in bytes."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SCALAR: Final = rb"(?:" + _STRING + rb'|[^"\[\]{},\s]++)'
_FAST_DEPTH: Final = 8
"""Levels of arrays and objects that the pattern of the common case matches; deeper ones take the slow way."""


def _nested(depth: int) -> bytes:
    inner = b"|" + _nested(depth - 1) if depth > 1 else b""
    return rb'[\[{](?:[^"\[\]{}]++|' + _STRING + inner + rb")*+[\]}]"


_CONTAINER: Final = _nested(_FAST_DEPTH)
_VALUE: Final = rb"(?:" + _SCALAR + rb"|" + _CONTAINER + rb")"
_TOKEN: Final = re.compile(_STRING + rb"|[\[\]{},]", re.DOTALL)
_SPACE: Final = b" \t\r\n"


class MemberText:
    """Finds the values of one member, whose name is ASCII letters."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._quoted = f'"{name}"'.encode()
        wanted = self._quoted + rb"\s*+:\s*+\{"
        others = rb"(?:(?!" + wanted + rb")" + _STRING + rb"\s*+:\s*+" + _VALUE + rb"\s*+,\s*+)*+"
        self._before = re.compile(rb"\s*+\{\s*+" + others + self._quoted, re.DOTALL)
        """Everything up to the name of the first member of this name whose value is an object."""
        self._value = re.compile(rb"\s*+:\s*+(?=\{)" + _CONTAINER, re.DOTALL)
        self._again = re.compile(self._quoted + rb"|\\u00[4-7]")
        """The same name, or what may spell it with escapes (a letter is U+0041 to U+007A)."""

    def last_object(self, text: bytes) -> bytes | None:
        """Return the last value of the member, which a parser keeps; None if that is not an object.

        `text` is an object.
        """
        value = self._value.match(text, self._name_end(text))
        if value is not None and self._again.search(text, value.end()) is None:
            return text[text.index(b"{", value.start()) : value.end()]
        spans = self.spans(text)
        found = text[slice(*spans[-1])] if spans else b""
        return found if found.startswith(b"{") else None

    def _name_end(self, text: bytes) -> int:
        """Return where the first name of the member ends whose value may be an object; 0 if not found."""
        start = text.find(self._quoted)
        before = text[: max(start, 0)]
        # Without nesting and escapes before it, and outside of a string, it is a member of the record itself.
        if (
            before.count(b"{") == 1
            and b"[" not in before
            and b"\\" not in before
            and not before.count(b'"') % 2
        ):
            return start + len(self._quoted)
        found = self._before.match(text)
        return 0 if found is None else found.end()

    def spans(self, text: bytes) -> list[Span]:
        """Return where the values of the member are; `text` is an object, of any depth."""
        found: list[Span] = []
        depth, key_next, value_start = 0, False, -1
        for token in _TOKEN.finditer(text):
            start, end = token.span()
            match text[start : start + 1]:
                case b'"':
                    if key_next and self._is_name(text[start:end]):
                        value_start = text.index(b":", end) + 1
                    key_next = False
                    continue
                case b"{" | b"[":
                    depth += 1
                    key_next = depth == 1
                    continue
                case mark if depth == 1:
                    if value_start >= 0:
                        found.append(_trimmed(text, value_start, start))
                    key_next, value_start = mark == b",", -1
            depth -= text[start] != _COMMA
        return found

    def _is_name(self, key: bytes) -> bool:
        if b"\\" not in key:
            return key == self._quoted
        try:
            return bool(orjson.loads(key) == self._name)
        except orjson.JSONDecodeError:  # half of a surrogate pair
            return False


_COMMA: Final = ord(",")


def _trimmed(text: bytes, start: int, end: int) -> Span:
    value = text[start:end]
    return end - len(value.lstrip(_SPACE)), start + len(value.rstrip(_SPACE))


def on_one_line(text: bytes) -> bytes:
    """Leave line ends out, and the blanks around them: within strings JSON has them only as escapes."""
    if b"\n" not in text and b"\r" not in text:
        return text
    return b"".join([line.strip(_SPACE) for line in text.splitlines()])
