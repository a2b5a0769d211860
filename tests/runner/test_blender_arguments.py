"""The frames that Blender's arguments name."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.runner.blender_arguments import frames_of_blender


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        ("-b a.blend -f 7", [7]),
        ("-b a.blend -f 1,3,5..8", [1, 3, 5, 6, 7, 8]),
        ("-b a.blend -o o -f 1 -f 2", [1, 2]),
        ("-b a.blend -s 3 -e 5 -a", [3, 4, 5]),
        ("-b a.blend -s 1 -e 9 -j 4 -a", [1, 5, 9]),
        ("-b a.blend --frame-start 1 --frame-end 2 --render-anim", [1, 2]),
        ("-b a.blend --render-frame 4 -- -f 9", [4]),
    ],
)
def test_frames_that_are_named(arguments: str, frames: list[int]) -> None:
    found = frames_of_blender(shlex.split(arguments))
    assert found is not None
    assert list(found) == frames


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-b a.blend",
        "-b a.blend -a",
        "-b a.blend -s 1 -a",
        "-b a.blend -e 9 -a",
        "-b a.blend -a -s 1 -e 9",
        "-b a.blend -s 9 -e 1 -a",
        "-b a.blend -s +1 -e 9 -a",
        "-b a.blend -s 1 -e -2 -a",
        "-b a.blend -f +1",
        "-b a.blend -f -1",
        "-b a.blend -f 1,-1",
        "-b a.blend -f",
        "-b a.blend -f 1 -a",
        "-b a.blend -s 1 -e 9 -j 0 -a",
        "-b a.blend -f 1..999999999",
    ],
)
def test_frames_that_the_scene_decides_are_not_known(arguments: str) -> None:
    assert frames_of_blender(shlex.split(arguments)) is None


@given(st.lists(st.sampled_from(["-s", "-e", "-j", "-f", "-a", "--", "1", "20", "+1", "-1", "1..", "x", ""])))
def test_any_arguments_are_read(arguments: list[str]) -> None:
    assert frames_of_blender(arguments) is None or len(frames_of_blender(arguments) or ()) > 0
