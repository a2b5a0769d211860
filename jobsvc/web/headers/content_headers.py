"""Format Content-Type and Content-Disposition from a file's name."""

from __future__ import annotations

import mimetypes
import re
from functools import lru_cache
from pathlib import PurePath
from typing import Final
from urllib.parse import quote

OCTETS: Final = "application/octet-stream"

# Only Python's tables, not those of the machine: a name has the same type everywhere.
_TYPES: Final = mimetypes.MimeTypes()
for _type, _suffixes in {
    "video/mp4": ".m4v",
    "video/quicktime": ".mov",
    "video/x-matroska": ".mkv",
    "video/webm": ".webm",
    "video/mxf": ".mxf",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "image/x-exr": ".exr",
    "image/webp": ".webp",
    "image/avif": ".avif",
    "image/x-dpx": ".dpx",
    "image/x-tga": ".tga",
    "application/x-blender": ".blend",
    "application/gzip": ".gz",
    "application/zstd": ".zst",
}.items():
    _TYPES.add_type(_type, _suffixes)

_SHOWN: Final = frozenset(
    {
        *("video/mp4", "video/webm", "video/quicktime", "video/ogg"),
        *("audio/mpeg", "audio/ogg", "audio/flac", "audio/mp4", "audio/x-wav"),
        *("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"),
        "text/plain",
    }
)
"""Not SVG, HTML and PDF: they can contain scripts."""
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]")
# RFC 8187, section 3.2.1, attr-char; quote() always leaves letters and digits unquoted.
_ATTR_CHAR: Final = "!#$&+-.^_`|~"


@lru_cache(maxsize=1024)
def content_type(name: str) -> str:
    """Return the media type for the name's suffix; a compressed file has the type of the compression."""
    return _TYPES.types_map[True].get(PurePath(name).suffix.lower(), OCTETS)


def saved_name(name: str) -> str:
    """Return the name under which clients save a file, without control characters and lone surrogates."""
    return _UNSAFE.sub("_", name).encode("utf-8", "replace").decode()


def is_shown_safely(media_type: str) -> bool:
    """Return whether a browser shows or plays this type, and runs no script in it."""
    return media_type in _SHOWN


@lru_cache(maxsize=1024)
def content_disposition(name: str, disposition: str = "attachment") -> str:
    """Return Content-Disposition (RFC 6266): an ASCII `filename`, and `filename*` if the name differs.

    `disposition`: "attachment" to save the file, "inline" to show it.
    """
    name = saved_name(name)
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    field = f'{disposition}; filename="{quoted}"'
    if name == plain and "%" not in name:
        return field
    return f"{field}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"
