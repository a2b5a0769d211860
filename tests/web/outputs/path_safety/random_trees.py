"""Random directories with links and FIFOs, random records of jobs, and which files such a record covers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import orjson
from hypothesis import strategies as st

from jobsvc.storage.layout import OutputRoot
from tests.web.outputs.path_safety.covered_files import (
    Covered,
    Output,
    files_below,
    frames,
    is_plain_file,
    pattern_of,
)

OWNER, OTHER_OWNER = "anna", "bert"
CLOSED: Final = "shared/deep/private"
_ROOTS: Final = {
    "shared": None,
    "annas": OWNER,
    "berts": OTHER_OWNER,
    CLOSED: OTHER_OWNER,
    "linked": None,
}
"""Output roots and their owners, None for all. One is below another, one is a symbolic link."""
PLACES: Final = ("job", "other", "outside", *_ROOTS)
"""Directories in which files are made: of the job, of another owner's job, outside of everything, roots."""

NAMES: Final = (
    *("a", "b", "A", "..a", "...", "a b", "%2e%2e", "a\\b", "\udcff", "n\nl", "é", "e\u0301", "x" * 255, "~"),
    *("f.0001.exr", "f.0002.exr", "f.-001.exr", "f.12345.exr", "F.0001.exr", "f.####.exr", "status.json"),
)
_PATHS: Final = (
    *(
        "a",
        "a/",
        "a/b",
        "b",
        "A",
        "f.####.exr",
        "a/f.%04d.exr",
        "./a//b/.",
        "é",
        "a/e\u0301/",
        "a b/f.@@.exr",
    ),
    *(
        "..",
        "../",
        ".",
        "/",
        "a/../b",
        "../{other}/a/",
        "../{other}/f.####.exr",
        "a\0b",
        "{job}/a",
        "render.log",
    ),
    *(
        "{shared}/a/",
        "{annas}/a",
        "{berts}/a/",
        "{private}/a",
        "{roots}/shared/deep/",
        "{private}/",
        "{linked}/a/",
        "{outside}/a/",
    ),
    *("{annas}/../../berts/a", "{shared}/f.####.exr", "{linked}", "{outside}/f.####.exr", "//{shared}//a/./"),
)

a_name = st.sampled_from(NAMES)
some_names = st.lists(a_name, min_size=1, max_size=3).map(tuple)
a_path = st.tuples(st.sampled_from(PLACES), some_names)
an_entry = st.tuples(
    a_path, st.sampled_from(("file", "file", "file", "directory", "fifo", "link", "relative-link")), a_path
)
an_output = st.tuples(st.sampled_from(_PATHS), st.sampled_from((None, None, "1", "1-2", "-5-12345")))
_OUTPUTS: Final = (("a/", None), ("f.####.exr", None), ("{roots}/shared/deep/", None))
_LINKS: Final = (
    (("job", ("a", "file")), "link", ("outside", ("a", "x"))),
    (("job", ("a", "folder")), "relative-link", ("other", ("a",))),
    (("job", ("f.0007.exr",)), "relative-link", ("other", ("f.0001.exr",))),
)
"""What every tree has besides its files."""
some_entries = st.lists(an_entry, max_size=12)
some_outputs = st.lists(an_output, max_size=4)

MARKER: Final = b"%07d/%07d\n"
"""Begins the content of a file: 16 bytes that no other file contains, of the tree's and the file's number."""

_FILES: Final = ("a/x", "a/b/y", "f.0001.exr", "f.0002.exr", "a/f.0001.exr", "e\u0301/z")

Place: TypeAlias = tuple[str, tuple[str, ...]]
Entry: TypeAlias = tuple[Place, str, Place]


class Roots(NamedTuple):
    """The directories that the service is started with."""

    scratch: Path

    @classmethod
    def make(cls, scratch: Path) -> Roots:
        """Make them, with one job so that the jobs root is not empty."""
        for name in (
            "jobs/anchor",
            "outside",
            "roots/shared/deep/private",
            "roots/annas",
            "roots/berts",
            "roots/real",
        ):
            (scratch / name).mkdir(parents=True)
        (scratch / "roots" / "linked").symlink_to("real")
        (scratch / "jobs" / "anchor" / "status.json").write_bytes(b'{"status": "queued"}')
        return cls(scratch)

    def settings(self) -> tuple[Path | OutputRoot, ...]:
        """Return the output roots as a setting."""
        return tuple(
            self.scratch / "roots" / name
            if owner is None
            else OutputRoot(owner, self.scratch / "roots" / name)
            for name, owner in _ROOTS.items()
        )


@dataclass
class Tree:
    """The directories of one job, with the same name in all places, and the job's record."""

    roots: Roots
    number: int
    outputs: list[Output] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    contents: dict[Path, bytes] = field(default_factory=dict)
    """Content by path of every file: its marker, repeated."""

    def fill(self, entries: Iterable[Entry], outputs: Iterable[tuple[str, str | None]]) -> None:
        """Create the files that every tree has, the random entries, and both jobs' records."""
        for place in PLACES:
            for name in _FILES:
                self.add_file(self.place(place) / name)
        for entry in (*_LINKS, *entries):
            self.add_entry(entry)
        names = {place.rpartition("/")[2]: self.place(place) for place in PLACES}
        names |= {"other": Path(self.other_id), "roots": self.roots.scratch / "roots"}
        for number, (path, wanted) in enumerate((*_OUTPUTS, *outputs)):
            output = {"name": f"o{number}", "path": path.format_map(names)}
            self.outputs.append(output if wanted is None else {**output, "frames": wanted})
        self.write_record(self.place("job"), OWNER)
        self.write_record(self.place("other"), OTHER_OWNER)

    @property
    def job_id(self) -> str:
        return f"job-{self.number}"

    @property
    def other_id(self) -> str:
        return f"other-{self.number}"

    def place(self, name: str) -> Path:
        """Return the directory of this tree in a place."""
        scratch = self.roots.scratch
        if name == "job":
            return scratch / "jobs" / self.job_id
        if name == "other":
            return scratch / "jobs" / self.other_id
        parent = scratch / "outside" if name == "outside" else scratch / "roots" / name
        return parent / f"tree-{self.number}"

    def add_file(self, path: Path) -> None:
        """Create a file with a content and a size of its own, unless there is something already."""
        size = 64 + len(self.contents)
        content = (MARKER % (self.number, len(self.contents)) * size)[:size]
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.resolve() == self._real_parent(path):
                with path.open("xb") as file:
                    file.write(content)
                self.contents[path] = content

    def _real_parent(self, path: Path) -> Path:
        """Return the parent as it is if no link is on the way to it, except the link that is a root."""
        return Path(str(path.parent).replace("/roots/linked", "/roots/real"))

    def add_entry(self, entry: Entry) -> None:
        """Create one random entry; where that is not possible, none."""
        (place, names), kind, (target_place, target_names) = entry
        if place in {"job", "other"} and names[0] == "status.json":
            return
        path = self.place(place).joinpath(*names)
        if kind == "file":
            self.add_file(path)
            return
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "directory":
                path.mkdir()
            elif kind == "fifo":
                os.mkfifo(path)
            else:
                target = self.place(target_place).joinpath(*target_names)
                path.symlink_to(os.path.relpath(target, path.parent) if kind == "relative-link" else target)
                self.links += path, path / "x"

    def write_record(self, folder: Path, owner: str) -> None:
        """Write a record that names the outputs."""
        folder.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {"status": "completed", "owner": owner, "outputs": self.outputs}
        temporary = folder / ".record"
        temporary.write_bytes(orjson.dumps(record))
        temporary.replace(folder / "status.json")
        self.contents.pop(folder / "status.json", None)

    def paths(self, output: Output, file: Path) -> tuple[str, ...]:
        """Return how a request for a file could name it, whether or not the output covers it."""
        path = output["path"].replace("\0", "")
        folder = self._start(path) / path
        if not path.endswith("/") and not folder.is_dir():
            folder = folder.parent
        return os.path.relpath(file, folder), file.name, str(file)

    def covered(self, *, is_swapped: bool = False) -> set[Covered]:
        """Return the files that the record covers.

        `is_swapped`: also frames of a pattern that is the name of a file, which may be missing for a moment.
        """
        found = set[Covered]()
        for output in self.outputs:
            exact = self._exact(output["path"])
            if exact is not None:
                found |= set(self._covered_by(output, exact))
                found |= set(frames(output, exact)) if is_swapped else set()
        return found

    def _start(self, path: str) -> Path:
        return Path("/") if path.startswith("/") else self.place("job")

    def _exact(self, path: str) -> Path | None:
        """Return where the path of an output leads without links; None if nowhere."""
        names = [name for name in path.split("/") if name not in {"", "."}]
        if ".." in names or "\0" in path or not names:
            return None
        if not path.startswith("/"):
            return self.place("job").joinpath(*names)
        root = self._output_root("/" + "/".join(names))
        return None if root is None else root.resolve().joinpath(*names[len(root.parts) - 1 :])

    def _covered_by(self, output: Output, exact: Path) -> Iterator[Covered]:
        is_folder = output["path"].endswith("/")
        if is_plain_file(exact) and not is_folder:
            yield Covered(output["name"], exact.name, exact)
        elif is_folder or pattern_of(exact.name) is None:
            closed = self.roots.scratch / "roots" / CLOSED
            for file in files_below(exact):
                if not output["path"].startswith("/") or not file.is_relative_to(closed):
                    yield Covered(output["name"], file.relative_to(exact).as_posix(), file)
        else:
            yield from frames(output, exact)

    def _output_root(self, path: str) -> Path | None:
        """Return the output root that is nearest to a path; None if the job's owner may not use it."""
        above = [name for name in _ROOTS if path.startswith(f"{self.roots.scratch}/roots/{name}/")]
        nearest = max(above, key=len, default=None)
        if nearest is None or _ROOTS[nearest] not in {None, OWNER}:
            return None
        return self.roots.scratch / "roots" / nearest
