"""The examples of Range fields in RFC 9110, section 14.1.2, for a file of 10,000 bytes.

Two tests use them: of the function that selects ranges, and of whole responses over sockets.
"""

from __future__ import annotations

from typing import Final

RFC_SIZE: Final = 10_000
"""Bytes of the file."""

RFC_RANGES: Final[list[tuple[str, list[tuple[int, int]]]]] = [
    ("bytes=0-499", [(0, 499)]),
    ("bytes=500-999", [(500, 999)]),
    ("bytes=-500", [(9500, 9999)]),
    ("bytes=9500-", [(9500, 9999)]),
    ("bytes=0-0,-1", [(0, 0), (9999, 9999)]),
    ("bytes= 0-999, 4500-5499, -1000", [(0, 999), (4500, 5499), (9000, 9999)]),
    ("bytes=500-600,601-999", [(500, 999)]),
    ("bytes=500-700,601-999", [(500, 999)]),
]
"""Fields, and the first and last position of each range that is sent; adjacent ranges are joined."""
