from __future__ import annotations

import pytest

from jobsvc.runner.event import Event
from jobsvc.runner.formats.ffmpeg import parse_ffmpeg


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("frame=50", Event(done=50)),
        ("frame=   50 ", Event(done=50)),
        ("out_time_us=1880078", Event(seconds=1.880078)),
        ("out_time_ms=960078", Event(seconds=0.960078)),
        ("out_time=00:01:01.500000", Event(seconds=61.5)),
        ("progress=end", Event(ended=True)),
    ],
)
def test_lines_of_progress_option(line: str, event: Event) -> None:
    assert parse_ffmpeg(line) == event


@pytest.mark.parametrize(
    "line",
    [
        "progress=continue",
        "frame=N/A",
        "frame=-1",
        "out_time_us=N/A",
        "out_time_ms=-9223372036854775808",
        "out_time=N/A",
        "out_time=-00:00:00.020000",
        "fps=25.00",
        "stream_0_0_q=-1.0",
        "bitrate=  19.5kbits/s",
        "total_size=4587",
        "dup_frames=0",
        "speed=10.5x",
        "size=       0kB time=N/A bitrate=N/A speed=N/A",
    ],
)
def test_values_that_are_unknown_or_of_no_interest(line: str) -> None:
    assert parse_ffmpeg(line) is None


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "frame=    5 fps=0.0 q=0.0 size=       0kB time=00:00:00.20 bitrate=N/A speed=   0x    ",
            Event(done=5, seconds=0.2),
        ),
        (
            (
                "frame=   50 fps=0.0 q=-1.0 Lsize=       4KiB time=01:00:01.88 bitrate=  19.6kbits/s "
                "speed=19.4x elapsed=0:00:00.09"
            ),
            Event(done=50, seconds=3601.88),
        ),
        ("size=     256kB time=00:00:10.00 bitrate= 209.7kbits/s speed=60x", Event(seconds=10.0)),
        ("frame=    1 fps=0.0 q=0.0 size=N/A time=-00:00:00.02 bitrate=N/A", Event(done=1)),
        ("frame=    1 fps=0.0 q=0.0 size=       0kB time=N/A bitrate=N/A", Event(done=1)),
        ("  Duration: 00:00:02.00, start: 0.000000, bitrate: 18 kb/s", Event(duration=2.0)),
        ("Output #0, mp4, to '/out/it's here.mp4':", Event(output="/out/it's here.mp4")),
        ("[hls @ 0x55781aa3ef80] Opening 'a/part0.ts' for writing", Event(output="a/part0.ts")),
    ],
)
def test_lines_of_standard_error(line: str, event: Event) -> None:
    assert parse_ffmpeg(line) == event


@pytest.mark.parametrize(
    "line",
    [
        "  Duration: N/A, bitrate: N/A",
        "Output #0, null, to 'pipe:':",
        "Output #0, rawvideo, to 'pipe:1':",
        "Input #0, mov,mp4,m4a,3gp,3g2,mj2, from '/in/a.mp4':",
        "Press [q] to stop, [?] for help",
        "[libx264 @ 0x561658edea00] frame I:1     Avg QP:26.06  size:   930",
        "Conversion failed!",
    ],
)
def test_other_lines_of_standard_error(line: str) -> None:
    assert parse_ffmpeg(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "/in/a.mp4: No such file or directory",
        "/out/a.mp4: Permission denied",
        "in.mov: Invalid data found when processing input",
        "Unknown encoder 'nosuch'",
        "Error reinitializing filters!",
        "[in#0 @ 0x5577] Error opening input: No such file or directory",
        "av_interleaved_write_frame(): No space left on device",
    ],
)
def test_errors(line: str) -> None:
    assert parse_ffmpeg(line) == Event(error=line)
