"""Parse Want-Repr-Digest and format Repr-Digest (RFC 9530), for SHA-256. Pure functions.

Want-Repr-Digest is a Dictionary of RFC 8941. An error anywhere makes the whole field invalid, and an invalid
field is ignored.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy, istr

WANT: Final = istr("Want-Repr-Digest")
FIELD: Final = istr("Repr-Digest")

# RFC 8941, sections 3 and 4.2. Possessive quantifiers prevent backtracking on a hostile field.
_NAME: Final = r"[a-z*][a-z0-9_.*-]*+"
_NUMBER: Final = r"-?(?:\d{1,12}\.\d{1,3}|\d{1,15})(?![\d.])"
_STRING: Final = r'"(?:[ !#-\[\]-~]|\\["\\])*+"'
_WORD: Final = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*+"
_BYTES: Final = r":(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}={0,2}|[A-Za-z0-9+/]{3}=?)?:"
_BARE: Final = rf"(?:{_NUMBER}|{_STRING}|{_WORD}|{_BYTES}|\?[01])"
_PARAMETERS: Final = rf"(?:; *+{_NAME}(?:={_BARE})?+)*+"
_ITEM: Final = rf"{_BARE}{_PARAMETERS}"
_INNER_LIST: Final = rf"\( *+(?:{_ITEM}(?: ++|(?=\))))*+\){_PARAMETERS}"
_MEMBER: Final = re.compile(
    rf"({_NAME})(?:=(?:({_BARE}){_PARAMETERS}|{_INNER_LIST})|{_PARAMETERS})", re.ASCII
)
_SEPARATOR: Final = re.compile(r"[ \t]*+,[ \t]*+")
_PREFERRED: Final = re.compile("0*+(?:[1-9]|10)")


def wants_sha256(headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> bool:
    """Whether SHA-256 has a preference from 1 to 10 (RFC 9530, section 4)."""
    if WANT not in headers:
        return False
    members = _dictionary(", ".join(headers.getall(WANT)).strip(" "))
    value = None if members is None else members.get("sha-256")
    return value is not None and _PREFERRED.fullmatch(value) is not None


def repr_digest(digest: bytes) -> str:
    """Format a SHA-256 as the value of Repr-Digest (RFC 9530, section 3)."""
    return f"sha-256=:{b64encode(digest).decode()}:"


def _dictionary(field: str) -> dict[str, str | None] | None:
    """Parse a Dictionary into bare values by key, with None for a list or no value; None if it is invalid.

    If a key is repeated, the last value counts.
    """
    members: dict[str, str | None] = {}
    position = 0
    while position < len(field):
        member = _MEMBER.match(field, position)
        if member is None:
            return None
        members[member[1]] = member[2]
        separator = _SEPARATOR.match(field, member.end())
        if separator is None:
            return members if not field[member.end() :].strip(" \t") else None
        position = separator.end()
        if position == len(field):
            return None
    return members
