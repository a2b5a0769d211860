"""Read the frames to render from the arguments of Blender, which prints their number only since 5.0. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from jobsvc.runner.frame_range import FrameRange, parse_frame_range

_OPTIONS: Final = {
    "-s": "start", "--frame-start": "start",
    "-e": "end", "--frame-end": "end",
    "-j": "step", "--frame-jump": "step",
    "-f": "frames", "--render-frame": "frames",
    "-a": "animation", "--render-anim": "animation",
}  # fmt: skip
_RANGE: Final = re.compile(r"([0-9]+)\.\.([0-9]+)", re.ASCII)


def frames_of_blender(arguments: Sequence[str]) -> FrameRange | None:
    """Return the frames of `-f`, or those of `-a` with `-s`, `-e` and `-j` before it, see `blender --help`.

    Returns None if they depend on the scene: an option is missing, or relative to the frames of the scene.
    """
    given = {"step": "1"}
    parts = []
    for word, value in zip_longest(arguments, arguments[1:], fillvalue=""):
        option = _OPTIONS.get(word)
        if word == "--":
            break
        if option == "frames":
            parts.append(_RANGE.sub(r"\1-\2", value))
        elif option == "animation":
            parts.append(f"{given.get('start', '')}-{given.get('end', '')}x{given['step']}")
        elif option:
            given[option] = value
    try:
        return parse_frame_range(",".join(parts)) if _is_absolute(parts) else None
    except ValueError:
        return None


def _is_absolute(parts: Sequence[str]) -> bool:
    """Return whether no frame is relative: `+2` is one from the start of the scene, `-2` from its end."""
    return all(part[:1].isdigit() for text in parts for part in text.split(","))
