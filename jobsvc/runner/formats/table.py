"""The formats of `--format`, and which one a program prints. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from jobsvc.runner.event import Parse
from jobsvc.runner.formats.aerender import parse_aerender
from jobsvc.runner.formats.blender import parse_blender
from jobsvc.runner.formats.compositors import parse_fusion, parse_natron, parse_nuke
from jobsvc.runner.formats.engines import parse_arnold, parse_redshift, parse_renderman, parse_vray
from jobsvc.runner.formats.ffmpeg import parse_ffmpeg
from jobsvc.runner.formats.generic import parse_generic
from jobsvc.runner.formats.houdini import parse_houdini
from jobsvc.runner.formats.modelers import parse_c4d, parse_clarisse, parse_lightwave, parse_max
from jobsvc.runner.formats.protocols import parse_alf, parse_cgru, parse_openjd

FORMATS: Final[Mapping[str, Parse]] = MappingProxyType(
    {
        "openjd": parse_openjd,
        "alf": parse_alf,
        "cgru": parse_cgru,
        "ffmpeg": parse_ffmpeg,
        "blender": parse_blender,
        "aerender": parse_aerender,
        "nuke": parse_nuke,
        "fusion": parse_fusion,
        "natron": parse_natron,
        "houdini": parse_houdini,
        "vray": parse_vray,
        "redshift": parse_redshift,
        "arnold": parse_arnold,
        "renderman": parse_renderman,
        "lightwave": parse_lightwave,
        "clarisse": parse_clarisse,
        "max": parse_max,
        "c4d": parse_c4d,
        "generic": parse_generic,
    }
)
"""Each format by its name. Where two can match the same line, the more specific one comes first."""

PROTOCOLS: Final = ("openjd", "alf", "cgru")
"""Formats that may occur beside those of any renderer."""

_PROGRAMS: Final = (
    ("ffmpeg", "ffmpeg"),
    ("blender", "blender"),
    ("aerender", "aerender"),
    ("nuke", "nuke"),
    ("natron", "natron"),
    ("fusion", "fusion"),
    ("hbatch", "houdini"),
    ("hython", "houdini"),
    ("hrender", "houdini"),
    ("mantra", "houdini"),
    ("karma", "houdini"),
    ("husk", "houdini"),
    ("kick", "arnold"),
    ("prman", "renderman"),
    ("vray", "vray"),
    ("redshiftcmdline", "redshift"),
    ("commandline", "c4d"),
    ("cinema 4d", "c4d"),
    ("3dsmaxcmd", "max"),
    ("lwsn", "lightwave"),
    ("crender", "clarisse"),
    ("cnode", "clarisse"),
)
"""How the names of programs begin, and their format."""


def format_of_program(program: str) -> str | None:
    """Return the format that a program prints, by the name of its file; None if it is not known.

    The name may go on with a version: `blender-4.5`, `Nuke15.1`, `Blender.exe`.
    """
    name = re.split(r"[/\\]", program)[-1].lower().removesuffix(".exe")
    for beginning, format_name in _PROGRAMS:
        if name.startswith(beginning) and not name[len(beginning) : len(beginning) + 1].isalpha():
            return format_name
    return None
