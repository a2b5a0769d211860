"""Want-Repr-Digest is parsed and Repr-Digest written as RFC 9530 and RFC 8941 define.

The second half compares the parser with the algorithm of RFC 8941, section 4.2, step by step.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from jobsvc.web.headers.repr_digest import repr_digest, wants_sha256


def wants(*lines: str) -> bool:
    return wants_sha256(CIMultiDict([("Want-Repr-Digest", line) for line in lines]))


WANTED: Final = [
    "sha-256=1",
    "sha-256=10",
    "sha-256=05",
    "sha-512=3, sha-256=10, unixsum=0",
    "sha-256=0, sha-256=2",
    'sha-256=1;a;b=2;c="x";*d=?0;e=:YQ==:;f=1.5;g=t/o:k',
    "a, sha-256=1",
    'a;x=1 , sha-256=1\t,\tb=(1 2;q  "z");r',
    "a=(), b=( ), sha-256=3 ",
    'a="\\"\\\\ ,sha-256=0", sha-256=3',
    "  sha-256=1",
    "*=1,sha-256=1,_=1".replace("_", "z_-.*"),
    "a=-1, b=-0.5, sha-256=1",
    "sha-256=1, a=?1, b=*token, c=:YWI:",
]

UNWANTED: Final = [
    "",
    " ",
    "sha-256=0",
    "sha-256=00",
    "sha-256=-0",
    "sha-256=11",
    "sha-256=-1",
    "sha-256=1.0",
    "sha-256=?1",
    "sha-256",
    "sha-256;q=1",
    'sha-256="1"',
    "sha-256=:MQ==:",
    "sha-256=one",
    "sha-256=(1)",
    "sha-256=2, sha-256=0",
    "sha-256=2, sha-256",
    "sha-512=10",
    "sha256=1",
    "sha-2567=1",
    "a=sha-256=1",
    "a;sha-256=1",
]

MALFORMED: Final = [
    "SHA-256=1",
    "sha-256=1,",
    ",sha-256=1",
    "sha-256=1,,a=1",
    "sha-256=1 a",
    "sha-256 =1",
    "sha-256= 1",
    "sha-256=1;",
    "sha-256=1 ;a",
    "sha-256=1;A",
    "sha-256=1;a=",
    "sha-256=1, a=",
    "sha-256=1, 1a=1",
    "sha-256=1, a=1.",
    "sha-256=1, a=.5",
    "sha-256=1, a=1.2345",
    "sha-256=1, a=1234567890123.1",
    "sha-256=1, a=1234567890123456",
    "sha-256=1, a=--1",
    "sha-256=1, a=-",
    'sha-256=1, a="',
    'sha-256=1, a="\\x"',
    'sha-256=1, a="ä"',
    "sha-256=1, a=ä",
    "sha-256=1, a=(1",
    "sha-256=1, a=(1,2)",
    "sha-256=1, a=(1\t2)",
    "sha-256=1, a=((1))",
    'sha-256=1, a=(1"x")',
    "sha-256=1, a=:Y",
    "sha-256=1, a=:Y!:",
    "sha-256=1, a=:Y:",
    "sha-256=1, a=:YWI==:",
    "sha-256=1, a=:=:",
    "sha-256=1, a=?2",
    "sha-256=1, a=@1",
    "\tsha-256=1",
    "sha-256=1;q=1;",
    "sha-256:1",
    "sha-256=1\x00",
    "sha-256=1\n",
    "sha-256=1, a=\udcff",
    "sha-256=\u0661",
]


@pytest.mark.parametrize("field", WANTED)
def test_sha_256_is_requested_by_a_preference_from_1_to_10(field: str) -> None:
    assert wants(field)


@pytest.mark.parametrize("field", UNWANTED)
def test_sha_256_is_not_requested_by_0_an_invalid_preference_or_its_absence(field: str) -> None:
    assert not wants(field)


@pytest.mark.parametrize("field", MALFORMED)
def test_syntax_error_anywhere_invalidates_the_whole_field(field: str) -> None:
    assert not wants(field)


def test_field_lines_are_one_field_and_no_line_requests_nothing() -> None:
    assert wants("sha-512=3", "sha-256=1")
    assert wants("sha-256=0", "sha-256=1")
    assert not wants("sha-256=1", "sha-256=0")
    assert not wants("sha-256=1", "?")
    assert not wants()
    assert not wants_sha256(CIMultiDict({"Want-Content-Digest": "sha-256=1"}))


@pytest.mark.parametrize(
    "unit", ["a,", "a;b", "(", "a=(", "a=( ", '"\\"', "a=1;", "1", " ", "a=:", "-", "a=(1 "]
)
def test_hostile_field_is_parsed_in_linear_time(unit: str) -> None:
    """Each is as long as a field can be; a backtracking parser would not finish before the test's timeout."""
    assert not wants(f"sha-256=1, a={unit * (8000 // len(unit))}!")
    assert not wants(f"{unit * (8000 // len(unit))}!")


def test_digest_is_formatted_as_in_the_examples_of_the_rfc() -> None:
    digest = hashlib.sha256(b'{"hello": "world"}\n').digest()
    assert repr_digest(digest) == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


# --- section 4.2 of RFC 8941, step by step


class ParseError(Exception):
    """Parsing fails."""


class Reference:
    """Consumes text from the front, as the algorithms do."""

    def __init__(self, text: str) -> None:
        if not text.isascii():
            raise ParseError
        self.rest = text

    def take(self, pattern: str) -> str:
        match = re.match(pattern, self.rest)
        if match is None:
            raise ParseError
        self.rest = self.rest[match.end() :]
        return match[0]

    def dictionary(self) -> dict[str, str | None]:
        self.take(" *")
        found: dict[str, str | None] = {}
        while self.rest:
            key = self.key()
            value: str | None = None
            if self.rest[:1] == "=":
                self.take("=")
                if self.rest[:1] == "(":
                    self.inner_list()
                else:
                    value = self.item()
            else:
                self.parameters()
            found[key] = value
            self.take("[ \t]*")
            if not self.rest:
                break
            self.take(",")
            self.take("[ \t]*")
            if not self.rest:
                raise ParseError
        return found

    def inner_list(self) -> None:
        self.take(r"\(")
        while True:
            self.take(" *")
            if self.rest[:1] == ")":
                self.take(r"\)")
                self.parameters()
                return
            self.item()
            if self.rest[:1] not in {" ", ")"} or not self.rest:
                raise ParseError

    def item(self) -> str:
        bare = self.bare()
        self.parameters()
        return bare

    def parameters(self) -> None:
        while self.rest[:1] == ";":
            self.take("; *")
            self.key()
            if self.rest[:1] == "=":
                self.take("=")
                self.bare()

    def key(self) -> str:
        return self.take(r"[a-z*][a-z0-9_\-.*]*")

    def bare(self) -> str:
        first = self.rest[:1]
        if first == "-" or (first.isdigit() and first.isascii()):
            return self.number()
        if first == '"':
            return self.take(r'"(?:[^\\"\x00-\x1f\x7f]|\\[\\"])*"')
        if first == ":":
            text = self.take(":[A-Za-z0-9+/]*={0,2}:")
            core = text.strip(":").rstrip("=")
            # Padding may be missing ("SHOULD NOT fail"), but not too long; a single digit is not a byte.
            if len(core) % 4 == 1 or len(text.strip(":")) - len(core) > -len(core) % 4:
                raise ParseError
            return text
        if first == "?":
            return self.take(r"\?[01]")
        return self.take(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")

    def number(self) -> str:
        sign, number = self.take("-?"), self.take("[0-9][0-9.]*")
        whole, dot, part = number.partition(".")
        if "." in part:  # the algorithm stops before it, and then finds no comma there
            raise ParseError
        if len(whole) > (12 if dot else 15) or (dot and not 1 <= len(part) <= 3):
            raise ParseError
        return sign + number


def by_the_rfc(field: str) -> bool:
    try:
        value = Reference(field).dictionary().get("sha-256")
    except ParseError:
        return False
    return value is not None and re.fullmatch("[0-9]+", value) is not None and 1 <= int(value) <= 10


BOUNDED: Final = settings(max_examples=300, deadline=None)
PIECES: Final = st.sampled_from(
    [
        *("sha-256", "sha-256=1", "sha-256=0", "=", ",", ", ", ";", " ", "\t", "(", ")", '"', "\\", ":"),
        *("?1", "a", "*", "A", "1", "10", "-", ".", "1.5", "YQ==", ":YQ==:", '"x"', "a=(1 2)", "; b", "b="),
        *("/", "ä", "\n"),
    ]
)


@BOUNDED
@given(st.lists(PIECES, max_size=12).map("".join))
@example("sha-256=1, a=1.2.3")
def test_field_is_parsed_like_the_algorithm(field: str) -> None:
    assert wants(field) == by_the_rfc(field)


@BOUNDED
@given(st.text(max_size=60))
def test_no_field_raises(field: str) -> None:
    assert wants(field) == by_the_rfc(field)


KEYS: Final = st.from_regex("[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True) | st.just("sha-256")
BARE: Final = st.integers(-20, 20).map(str) | st.sampled_from(
    ["1.5", "?0", "token", '"te, xt"', ":aGk=:", "*x/y"]
)
PARAMETERS: Final = st.lists(st.tuples(KEYS, st.none() | BARE), max_size=2).map(
    lambda some: "".join(f";{key}" if value is None else f"; {key}={value}" for key, value in some)
)
ITEMS: Final = st.tuples(BARE, PARAMETERS)
MEMBERS: Final = st.lists(
    st.tuples(
        KEYS,
        PARAMETERS.map(lambda some: (None, some))
        | ITEMS
        | st.lists(ITEMS.map("".join), max_size=3).map(lambda some: ("(" + " ".join(some) + ")", "")),
    ),
    max_size=5,
)


@BOUNDED
@given(MEMBERS, st.sampled_from([",", ", ", " ,\t"]))
def test_last_preference_of_sha_256_counts(
    members: list[tuple[str, tuple[str | None, str]]], between: str
) -> None:
    field = between.join(
        f"{key}{rest}" if value is None else f"{key}={value}{rest}" for key, (value, rest) in members
    )
    last = {key: value for key, (value, _) in members}.get("sha-256")
    assert wants(field) == (last in {str(number) for number in range(1, 11)})
