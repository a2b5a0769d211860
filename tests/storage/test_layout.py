from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.storage.layout import (
    MAX_PATH_DEPTH,
    MAX_PATH_LENGTH,
    MAX_RECORD_BYTES,
    TEMP_PREFIX,
    beneath,
    components,
    is_job_id,
)

NAMES = st.sampled_from(["a", "b", "..", ".", "", "...", "a..b", "ä", "a b", " ", "\n", "x" * 300])
PATHS = st.lists(NAMES, max_size=8).map("/".join) | st.text(max_size=20)


@pytest.mark.parametrize(
    "name", ["a", "0", "job-1", "A.b_c-d", "a" * 128, "a..b", "a.", "3f9c2a6e-7d54-4b1e-9a53-5c0d6b1f8e21"]
)
def test_job_id_consists_of_letters_digits_dots_dashes_and_underscores(name: str) -> None:
    assert is_job_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", ".hidden", "-x", "_x", "a" * 129, "a/b", "a\\b", "a b", "a\0", "a\n", "\na", "ä", "aä",
        "٣", "a%2e", "a~", "lost+found", "a\udcff", "a:b", "\u212a",
    ],
)  # fmt: skip
def test_other_names_are_not_job_ids(name: str) -> None:
    assert not is_job_id(name)


@given(name=st.text(max_size=130))
def test_job_id_is_one_visible_component_and_no_reserved_name(name: str) -> None:
    if is_job_id(name):
        assert components(name) == (name,)
        assert name.isascii()
        assert not name.startswith((".", TEMP_PREFIX))
    assert not is_job_id(TEMP_PREFIX + name)


def test_record_limit_is_one_mebibyte() -> None:
    assert MAX_RECORD_BYTES == 1024 * 1024


@given(path=PATHS)
def test_path_is_split_into_plain_names_in_order(path: str) -> None:
    names = components(path)
    if names is None:
        assert "\0" in path or ".." in path.split("/") or not path.strip("/.")
    else:
        assert names == tuple(name for name in PurePosixPath(path.lstrip("/")).parts if name != ".")
        assert not {"", ".", ".."} & set(names)
        assert not re.search("[/\0]", "".join(names))
        assert components("/" + path) == components(f"./{path}//") == names


@pytest.mark.parametrize(
    "path", ["", ".", "/", "./.", "//", "..", "a/..", "../a", "a/../b", "/..", "a\0", "\0"]
)
def test_empty_or_upward_path_is_rejected(path: str) -> None:
    assert components(path) is None


def test_length_and_depth_of_a_path_are_limited() -> None:
    assert components("a" * MAX_PATH_LENGTH) == ("a" * MAX_PATH_LENGTH,)
    assert components("a" * (MAX_PATH_LENGTH + 1)) is None
    assert components("a/" * MAX_PATH_DEPTH) == ("a",) * MAX_PATH_DEPTH
    assert components("a/" * (MAX_PATH_DEPTH + 1)) is None


@pytest.mark.parametrize(
    ("root", "path", "names"),
    [
        ("/out", "/out/a/b", ("a", "b")),
        ("/out/", "//out/./a", ("a",)),
        ("/", "/out/a", ("out", "a")),
        ("/out", "/out", None),
        ("/out", "/out/", None),
        ("/out", "/output/a", None),
        ("/out", "/else/out/a", None),
        ("/out/deep", "/out/a", None),
        ("/out", "/out/../etc/passwd", None),
        ("/out", "/out/a\0", None),
        ("/out", "/", None),
        ("/out", "", None),
    ],
)
def test_absolute_path_is_split_below_its_root(root: str, path: str, names: tuple[str, ...] | None) -> None:
    assert beneath(root, path) == names


@pytest.mark.parametrize("root", ["/srv/../out", "..", "", "/out\0", "out", "/a" * (MAX_PATH_DEPTH + 1)])
def test_nothing_is_below_a_root_that_is_not_a_plain_absolute_path(root: str) -> None:
    for path in ("/etc/passwd", "/out/a", f"{root}/a", "/srv/../out/a"):
        assert beneath(root, path) is None


@given(root=PATHS.map("/{}".format), path=PATHS.map("/{}".format))
def test_result_agrees_with_pathlib(root: str, path: str) -> None:
    names = beneath(root, path)
    if names is not None:
        assert PurePosixPath("/", *names) == "/" / PurePosixPath(path.lstrip("/")).relative_to(
            root.lstrip("/")
        )
