"""The id of a download link, and the record of a link as a line of JSON. Pure.

The id is derived from the signature, and not part of the URL: everyone who has a link can compute its id, and
nobody can compute a link from its id. The record contains no signature.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

import orjson

from jobsvc.domain.timestamp import parse_time
from jobsvc.storage.state.token_format import time_text

_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
_SIGNATURE: Final = re.compile(r"[?&]signature=([A-Za-z0-9_-]{43})(?:\Z|#)", re.ASCII)
_TEXTS: Final = ("id", "job", "name", "tokenId", "owner")


class IssuedLink(NamedTuple):
    """A link that the service has created."""

    id: str
    job: str
    name: str
    """Name of the file, or of the archive, that it leads to."""
    token_id: str
    owner: str
    """Owner of the token that created it."""
    created: float
    """Seconds since the epoch, as `expires` is."""
    expires: float

    def line(self) -> bytes:
        """Encode the record as JSON, without a line break."""
        texts = zip(_TEXTS, self, strict=False)
        times = {"created": time_text(self.created), "expires": time_text(self.expires)}
        return orjson.dumps(dict(texts) | times)


def parse_issued_link(line: bytes) -> IssuedLink | None:
    """Parse a record; None if it is invalid."""
    try:
        record = orjson.loads(line)
        texts = {key: record[key] for key in _TEXTS}
        created, expires = (parse_time(record[key]) / 1e6 for key in ("created", "expires"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not all(isinstance(text, str) and text.isprintable() for text in texts.values()):
        return None
    if not is_link_id(texts["id"]):
        return None
    return IssuedLink(
        texts["id"], texts["job"], texts["name"], texts["tokenId"], texts["owner"], created, expires
    )


def link_id(signature: str) -> str:
    """Return the id of the link with this signature: 64 bits of its SHA-256, in hex."""
    return hashlib.sha256(signature.encode("ascii")).hexdigest()[:16]


def is_link_id(text: str) -> bool:
    """Return whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def parse_link_name(text: str) -> str | None:
    """Return the id that a text names, which is an id or the URL of a link; None if it is neither."""
    if is_link_id(text):
        return text
    signature = _SIGNATURE.search(text)
    return None if signature is None else link_id(signature[1])
