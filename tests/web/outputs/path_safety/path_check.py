"""Checks that responses contain nothing but files that a job's record covers."""

from __future__ import annotations

import io
import re
import tarfile
from typing import Any, Final
from zipfile import ZipFile

import orjson

from tests.web.outputs.path_safety.covered_files import is_usable
from tests.web.outputs.path_safety.hostile_targets import Answer
from tests.web.outputs.path_safety.random_trees import Tree

_MARKERS: Final = re.compile(rb"[0-9]{7}/[0-9]{7}\n")
_WITH_BODY: Final = (200, 206)


class Check:
    """What may be served of a tree, as it is when this is created."""

    def __init__(self, tree: Tree, *, is_swapped: bool) -> None:
        """`is_swapped`: whether files may be missing for a moment, or be replaced."""
        self.files = {(found.output, found.path): found.file.read_bytes() for found in tree.covered()}
        """Content by output and path."""
        covered = [(found, found.file.read_bytes()) for found in tree.covered(is_swapped=is_swapped)]
        self._contents = {content for _, content in covered}
        self._markers = {marker for content in self._contents for marker in _MARKERS.findall(content)}
        self._sizes = {(found.output, found.path, len(content)) for found, content in covered}

    def answer(self, answer: Answer, request: bytes) -> bool:
        """Check any response; return whether it has bytes of a file."""
        told = f"{request!r}: {answer.head!r} {answer.body[:200]!r}"
        assert set(_MARKERS.findall(answer.body)) <= self._markers, f"a secret: {told}"
        if answer.status not in _WITH_BODY or len(answer.body) < int(answer.field(b"Content-Length")):
            return False  # an error, or aborted because the file was changed
        if answer.field(b"Content-Type") in {b"application/x-tar", b"application/zip"}:
            self._members(answer, told)
        elif answer.field(b"Content-Disposition"):
            self._file(answer, told)
        elif b'"files":' in answer.body:
            self._page(answer, told)
            return False
        return True

    def listed(self, answer: Answer) -> list[dict[str, Any]]:
        """Check that a list is complete, and return it."""
        expected = {(*key, len(content)) for key, content in self.files.items() if is_usable(key[1])}
        files: list[dict[str, Any]] = orjson.loads(answer.body).get("files", [])
        assert _keys(files) == expected, answer
        return files

    def archive(self, answer: Answer) -> None:
        """Check that an archive is complete."""
        expected = {
            f"{output}/{path}": content for (output, path), content in self.files.items() if is_usable(path)
        }
        assert (_unpacked(answer.body) if answer.status == 200 else {}) == expected, answer

    def _page(self, answer: Answer, told: str) -> None:
        assert _keys(orjson.loads(answer.body)["files"]) <= self._sizes, told

    def _file(self, answer: Answer, told: str) -> None:
        if answer.status == 200:
            assert answer.body in self._contents, told
            return
        first, last, size = map(
            int, re.split(b"[-/]", answer.field(b"Content-Range").removeprefix(b"bytes "))
        )
        assert any(
            len(content) == size and content[first : last + 1] == answer.body for content in self._contents
        ), told

    def _members(self, answer: Answer, told: str) -> None:
        if answer.status == 200:
            for name, content in _unpacked(answer.body).items():
                assert content in self._contents, f"{name}: {told}"


def _keys(files: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
    return {(file["output"], file["path"], file["size"]) for file in files}


def _unpacked(archive: bytes) -> dict[str, bytes]:
    if archive.startswith(b"PK"):
        with ZipFile(io.BytesIO(archive)) as zipped:
            return {name: zipped.read(name) for name in zipped.namelist()}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        members = [(member.name, opened.extractfile(member)) for member in opened]
        return {name: content.read() for name, content in members if content is not None}
