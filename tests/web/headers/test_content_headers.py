from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.web.headers.content_headers import content_disposition, content_type

TYPES = {
    "film.mp4": "video/mp4",
    "FILM.MP4": "video/mp4",
    "film.m4v": "video/mp4",
    "film.mov": "video/quicktime",
    "film.mkv": "video/x-matroska",
    "film.webm": "video/webm",
    "film.mxf": "video/mxf",
    "still.jpg": "image/jpeg",
    "still.jpeg": "image/jpeg",
    "still.png": "image/png",
    "still.tiff": "image/tiff",
    "still.exr": "image/x-exr",
    "still.webp": "image/webp",
    "sound.flac": "audio/flac",
    "frames.zip": "application/zip",
    "frames.tar": "application/x-tar",
    "frames.tar.gz": "application/gzip",
    "film.mp4.zst": "application/zstd",
    "two.dots.mp4": "video/mp4",
    "größe.mp4": "video/mp4",
    "\udcff.mp4": "video/mp4",
}
UNTYPED = [
    "mp4",
    "jpg",
    "film",
    ".mp4",
    "film.",
    "film.mp4.",
    "film.mp4 ",
    "film.nothing",
    "film.mp4.part",
    ".",
]


@pytest.mark.parametrize(("name", "type_"), TYPES.items())
def test_content_type_follows_from_the_suffix(name: str, type_: str) -> None:
    assert content_type(name) == type_


@pytest.mark.parametrize("name", UNTYPED)
def test_unknown_suffix_is_octet_stream(name: str) -> None:
    assert content_type(name) == "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("film.mp4", 'attachment; filename="film.mp4"'),
        ("a film; final.mp4", 'attachment; filename="a film; final.mp4"'),
        ('the "end".mp4', 'attachment; filename="the \\"end\\".mp4"'),
        ("back\\slash.mp4", 'attachment; filename="back\\\\slash.mp4"'),
        ("line\r\nfeed.mp4", 'attachment; filename="line__feed.mp4"'),
        ("100%.mp4", "attachment; filename=\"100%.mp4\"; filename*=UTF-8''100%25.mp4"),
        ("größe.mp4", "attachment; filename=\"gr__e.mp4\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.mp4"),
        ("映画.mp4", "attachment; filename=\"__.mp4\"; filename*=UTF-8''%E6%98%A0%E7%94%BB.mp4"),
        ("🎬 1.mp4", "attachment; filename=\"_ 1.mp4\"; filename*=UTF-8''%F0%9F%8E%AC%201.mp4"),
        ("\udcff.mp4", "attachment; filename=\"_.mp4\"; filename*=UTF-8''%3F.mp4"),
    ],
)
def test_content_disposition_has_the_file_name(name: str, field: str) -> None:
    assert content_disposition(name) == field


FIELD = re.compile(
    r"attachment; filename=\"((?:[ !#-\[\]-~]|\\[\\\"])*)\""
    r"(?:; filename\*=UTF-8''((?:[!#$&+.^_`|~A-Za-z0-9-]|%[0-9A-F]{2})+))?"
)


@given(st.text(st.characters(), min_size=1, max_size=40))
def test_any_name_gives_a_valid_field_close_to_the_name(name: str) -> None:
    field = FIELD.fullmatch(content_disposition(name))
    assert field is not None
    plain = re.sub(r"\\(.)", r"\1", field[1])
    shown = plain if field[2] is None else unquote_to_bytes(field[2]).decode()
    for letters in (plain, shown):
        assert len(letters) == len(name)
        assert all(now in {was, "_", "?"} for was, now in zip(name, letters, strict=True))
    assert shown == name or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name)
