from __future__ import annotations

import pytest

from jobsvc.runner.event import Event
from jobsvc.runner.formats.auto import AUTO, FormatDetector, parser_for
from jobsvc.runner.formats.table import FORMATS, format_of_program


def detected(*lines: str) -> tuple[str | None, list[Event]]:
    detector = FormatDetector()
    events = [event for line in lines if (event := detector.parse(line)) is not None]
    return detector.format, events


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("frame=   50 fps=0.0 q=-1.0 size= 4kB time=00:00:01.88 bitrate=  19.6kbits/s", "ffmpeg"),
        ("  Duration: 00:00:02.00, start: 0.000000, bitrate: 18 kb/s", "ffmpeg"),
        ("Fra:1 Mem:49.06M (Peak 49.60M) | Time:00:00.25 | Sample 32/128", "blender"),
        ("00:00.110  render           | Rendering frame 2", "blender"),
        ("PROGRESS:  Start: 0:00:00:00", "aerender"),
        ("Dauer: 0:00:10:00", "aerender"),
        ("Frame 12 (3 of 10)", "nuke"),
        ("Rendered frame 12 (3 of 10), took 0.24 secs", "fusion"),
        ("Frame rendered: 12", "natron"),
        ("RopNode.render: frame 12", "houdini"),
        ("mantra: Generating Image: /out/a.exr (1920x1080)", "houdini"),
        ("Starting frame 12", "vray"),
        ("[Redshift] Rendering frame 5...", "redshift"),
        ("00:00:10   90MB | [driver_exr] writing file `/out/a.exr'", "arnold"),
        ('"/out/a.exr" mode = rgba', "renderman"),
        ("Beginning frame: 5", "lightwave"),
    ],
)
def test_format_is_recognised_by_its_lines(line: str, name: str) -> None:
    found, events = detected("Loading", line)
    assert found == name
    assert events == [FORMATS[name](line)]


def test_recognised_format_is_kept() -> None:
    name, events = detected(
        "Fra:1 Mem:49.06M | Sample 1/2", "Frame 12 (3 of 10)", "99%", "99%", "99%", "Beginning frame: 5"
    )
    assert name == "blender"
    assert [event.part for event in events] == [0.5]


def test_error_and_bar_do_not_recognise_a_format() -> None:
    name, events = detected("error: no license", "Rendering image...:  42.3%", "Fra:1 Mem:1M")
    assert name == "blender"
    assert [event.error for event in events] == ["error: no license", None, None]


def test_protocols_are_read_beside_any_format() -> None:
    name, events = detected(
        "openjd_status: Loading", "Fra:1 Mem:1M", "ALF_PROGRESS 42%", "openjd_progress: 7"
    )
    assert name == "blender"
    assert events == [Event(phase="Loading"), Event(frame=1), Event(part=0.42), Event(percent=7)]


def test_percentages_of_an_unknown_program_count_from_the_third_one() -> None:
    name, events = detected("10%", "20%", "30%", "40%")
    assert (name, [event.part for event in events]) == (None, [0.3, 0.4])


def test_falling_percentages_are_not_progress() -> None:
    assert detected("90% of textures found", "10% noise", "5% done", "Building BVH 0%", "30%") == (None, [])


@pytest.mark.parametrize(
    "line",
    [
        "CPU usage: 85%",
        "Downloading add-ons 42%",
        "Reading frame.of.3",
        'File "/usr/lib/python3.11/runpy.py", line 198',
        "12:34:56 [INFO] started 10/20 workers",
        "gcc: 12 (3): note",
        "Image size: 1920x1080",
        "Duration of the shot: 3 s",
        "Saved settings",
        "Loading /in/Frame 1/plate.exr",
    ],
)
def test_lines_of_other_programs_say_nothing(line: str) -> None:
    assert detected(line, line, line) == (None, [])


def test_generic_lines_are_read_without_a_recognised_format() -> None:
    name, events = detected("Rendering frame 12", "frame 3 of 10")
    assert name is None
    assert events == [Event(frame=12), Event(frame=3, done=2, total=10)]


def test_parser_removes_colours() -> None:
    assert parser_for("blender")("\x1b[32mFra:1 Mem:1M\x1b[0m") == Event(frame=1)
    assert parser_for(AUTO)("\x1b[1;31mFra:1 Mem:1M\x1b[0m") == Event(frame=1)


def test_unknown_format_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        parser_for("paint")


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("/usr/bin/blender", "blender"),
        ("/opt/blender-4.5/blender", "blender"),
        (r"C:\Program Files\Adobe\aerender.exe", "aerender"),
        ("Nuke15.1", "nuke"),
        ("ffmpeg", "ffmpeg"),
        ("husk", "houdini"),
        ("/opt/kick", "arnold"),
        ("Commandline.exe", "c4d"),
        ("nukem", None),
        ("ffmpegthumbnailer", None),
        ("python3", None),
        ("", None),
    ],
)
def test_format_of_a_program_by_its_name(program: str, name: str | None) -> None:
    assert format_of_program(program) == name
    assert name is None or name in FORMATS
