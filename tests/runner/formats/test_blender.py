from __future__ import annotations

import pytest

from jobsvc.runner.event import Event
from jobsvc.runner.formats.blender import parse_blender

INTERNAL_2_4 = [
    (
        "Fra:7 Mem:8.55M (11.55M, peak 29.22M) | Scene, Part 4-16",
        Event(frame=7, part=0.25, phase="rendering"),
    ),
    ("Fra:7 Mem:8.55M (11.55M, peak 29.22M) | Preparing Scene data", Event(frame=7, phase="preparing")),
    ("Saved: /out/0007.png Time: 00:27.91", Event(output="/out/0007.png", frame_done=True)),
]
CYCLES_2_79 = [
    (
        (
            "Fra:12 Mem:230.39M (0.00M, Peak 230.39M) | Time:00:05.02 | Remaining:00:45.11 | "
            "Mem:64.67M, Peak:64.67M | Scene, RenderLayer | Path Tracing Tile 136/510, Denoised 96 tiles"
        ),
        Event(frame=12, part=136 / 510, phase="rendering"),
    ),
    (
        "Fra:12 Mem:26.02M (0.00M, Peak 26.02M) | Time:00:00.13 | Scene | Updating Scene BVH | Building BVH",
        Event(frame=12, phase="preparing"),
    ),
    ("Saved: '/out/0012.png'", Event(output="/out/0012.png")),
    (" Time: 00:27.91 (Saving: 00:00.02)", Event(frame_done=True)),
]
CYCLES_2_93 = [
    (
        (
            "Fra:1 Mem:49.06M (Peak 49.60M) | Time:00:01.06 | Remaining:00:03.42 | Mem:12.20M, Peak:12.20M | "
            "Scene, View Layer | Rendered 136/510 Tiles, Denoised 96 tiles"
        ),
        Event(frame=1, part=136 / 510, phase="rendering"),
    ),
]
CYCLES_3_4 = [
    (
        (
            "Fra:1 Mem:49.06M (Peak 49.60M) | Time:00:00.25 | Remaining:00:10.02 | Mem:3.36M, Peak:3.36M | "
            "Scene, ViewLayer | Sample 32/128"
        ),
        Event(frame=1, part=0.25, phase="rendering"),
    ),
    (
        (
            "Fra:1 Mem:900.06M (Peak 949.60M) | Time:00:10.25 | Mem:3.36M, Peak:3.36M | Scene, ViewLayer | "
            "Rendered 1/4 Tiles, Sample 64/128"
        ),
        Event(frame=1, part=0.375, phase="rendering"),
    ),
    (
        "Fra:-5 Mem:49.06M (Peak 49.60M) | Time:00:00.09 | Scene, ViewLayer | Synchronizing object | Cube",
        Event(frame=-5, phase="preparing"),
    ),
    ("Append frame 250", Event(frame=250, frame_done=True)),
]
EEVEE_4_5 = [
    (
        "Fra:51 Mem:109.56M (Peak 116.98M) | Time:00:01.58 | Rendering 16 / 64 samples",
        Event(frame=51, part=0.25, phase="rendering"),
    ),
    ("Fra:51 Mem:18.09M (Peak 19.17M) | Time:00:00.08 | Syncing Cube", Event(frame=51, phase="preparing")),
    ("Fra:51 Mem:18.09M (Peak 19.17M) | Time:00:00.08 | Compositing", Event(frame=51, phase="compositing")),
    ("Blender quit", Event(ended=True)),
]
BLENDER_5 = [
    ("00:00.100  render           | Rendering animation (frames 1..3)", Event(first=1, last=3)),
    ("00:00.100  render           | Rendering single frame (frame 7)", Event(first=7, last=7)),
    ("00:00.110  render           | Rendering frame 2", Event(frame=2, phase="preparing")),
    (
        "00:04.230  render           | Fra: 1 | Remaining: 01:43.73 | Mem: 1699M | Sample 32/128",
        Event(frame=1, part=0.25, phase="rendering"),
    ),
    (
        "00:00.300  render           | Fra: 1 | Rendering 8 / 16 samples",
        Event(frame=1, part=0.5, phase="rendering"),
    ),
    (
        "00:02.453  render           | Fra: 1 | Mem: 1M | Updating Scene BVH | Building BVH 0%",
        Event(frame=1, phase="preparing"),
    ),
    ("00:09.766  render           | Fra: 1 | Mem: 1039M | Finished", Event(frame=1)),
    ("00:00.687  render           | Saved: '/out/0001.png'", Event(output="/out/0001.png")),
    (r"00:04.094  render | Saved: 'C:\out\a_0004.png'", Event(output=r"C:\out\a_0004.png")),
    ("00:00.687  render           | Time: 00:00.49 (Saving: 00:00.05)", Event(frame_done=True)),
    (
        '00:00.687  render           | Skipping existing frame "/out/0001.png"',
        Event(skipped=True, output="/out/0001.png"),
    ),
]


@pytest.mark.parametrize(
    ("line", "event"), [*INTERNAL_2_4, *CYCLES_2_79, *CYCLES_2_93, *CYCLES_3_4, *EEVEE_4_5, *BLENDER_5]
)
def test_lines_of_all_versions(line: str, event: Event) -> None:
    assert parse_blender(line) == event


@pytest.mark.parametrize(
    "line",
    [
        "Blender 4.5.4 LTS (hash b3efe983cc58 built 2025-10-28 14:22:47)",
        'Read blend: "/in/Fra:1 | Sample 3/4.blend"',
        '00:00.001  blend            | Read blend: "/in/scene.blend"',
        "Rendering frame 3",
        "Info: Saved session recovery to '/tmp/quit.blend'",
        "Fra:",
        "Fra:1.5 Mem",
        "",
    ],
)
def test_lines_of_no_interest(line: str) -> None:
    assert parse_blender(line) is None


def test_samples_of_nothing_are_no_part() -> None:
    assert parse_blender("Fra:1 Mem:1M | Sample 0/0") == Event(frame=1)
    assert parse_blender("Fra:1 Mem:1M | Rendered 0/0 Tiles") == Event(frame=1)


def test_path_without_its_first_quote() -> None:
    assert parse_blender(r"Saved: ..\data\a.png'") == Event(output=r"..\data\a.png")


@pytest.mark.parametrize(
    "line",
    [
        "Error: Cannot read file '/in/a.blend': No such file or directory",
        "Render error: cannot save: '/out/0001.png'",
        "ERROR (bke.lib_id): missing library",
        "Error: CUDA error: Out of memory in cuMemAlloc(&device_pointer, size), line 1234",
        "RuntimeError: Error: Camera not found",
    ],
)
def test_errors(line: str) -> None:
    assert parse_blender(line) == Event(error=line)


def test_error_of_version_5_has_no_time() -> None:
    event = parse_blender("00:00.400  cycles           | ERROR CUDA error: Out of memory")
    assert event == Event(error="ERROR CUDA error: Out of memory")
