"""What a file is called and what it is, as header fields: Content-Type and Content-Disposition."""

from __future__ import annotations

import mimetypes
import re
from functools import lru_cache
from pathlib import PurePath
from typing import Final
from urllib.parse import quote

OCTETS: Final = "application/octet-stream"

# The tables of Python alone, not of the machine: the same name has the same type everywhere.
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

_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]")
# RFC 8187, section 3.2.1, attr-char; letters and digits are safe to quote() of themselves.
_ATTR_CHAR: Final = "!#$&+-.^_`|~"


@lru_cache(maxsize=1024)
def content_type(name: str) -> str:
    """Tell the media type from the name's suffix; what is compressed is that and not what is in it."""
    return _TYPES.types_map[True].get(PurePath(name).suffix.lower(), OCTETS)


def saved_name(name: str) -> str:
    """Return the name under which clients save a file: without control characters and lone surrogates."""
    return _UNSAFE.sub("_", name).encode("utf-8", "replace").decode()


@lru_cache(maxsize=1024)
def content_disposition(name: str) -> str:
    """Name the file for saving (RFC 6266): `filename` in ASCII, and `filename*` where that is not it."""
    name = saved_name(name)
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    field = f'attachment; filename="{quoted}"'
    if name == plain and "%" not in name:
        return field
    return f"{field}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"
