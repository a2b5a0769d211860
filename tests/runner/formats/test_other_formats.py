"""One table for each format that has few kinds of lines."""

from __future__ import annotations

import pytest

from jobsvc.runner.event import Event, Timecode
from jobsvc.runner.formats.table import FORMATS

LINES: dict[str, list[tuple[str, Event | None]]] = {
    "aerender": [
        ("PROGRESS:  Start: 0:00:01:00", Event(start=1.0)),
        ("PROGRESS:  End: 0:00:09:29", None),
        ("PROGRESS:  Duration: 0:00:10:12", Event(duration=10.0, timecode=Timecode(10, 12))),
        (
            "PROGRESS:  Duration: 0;01;00;02",
            Event(duration=60.0, timecode=Timecode(60, 2, is_drop_frame=True)),
        ),
        ("PROGRESS:  Frame Rate: 30.00 (comp)", Event(frame_rate=30.0)),
        ("PROGRESS:  Frame Rate: 23.976 (comp)", Event(frame_rate=23.976)),
        ("PROGRESS:  Frame Rate: 0.00 (comp)", None),
        ("PROGRESS:  0:00:04:29 (150): 3 Seconds", Event(frame=150, frame_done=True, seconds=4.0)),
        ("PROGRESS:  00150 (151): 3 Seconds", Event(frame=151, frame_done=True)),
        (r"PROGRESS:  Output To: C:\out\a.mov", Event(output=r"C:\out\a.mov")),
        ("PROGRESS:  Total Time Elapsed: 8 Seconds", Event(ended=True)),
        ("PROGRESS:  Render Settings: Best Settings", None),
        ("PROGRESS:  10/7/26 10:00:00 AM: Starting composition “Main”.", None),
        ("Anfang: 0:00:00:00", Event(start=0.0)),
        ("FORTSCHRITT:  Dauer: 0:00:10:00", Event(duration=10.0, timecode=Timecode(10, 0))),
        ("FORTSCHRITT:  0:00:04:29 (150): 3 Sekunden", Event(frame=150, frame_done=True, seconds=4.0)),
        ("PROGRESSION :  Durée : 0:00:10:00", Event(duration=10.0, timecode=Timecode(10, 0))),
        ("FORTSCHRITT:  Framerate: 25,00 (Komp.)", Event(frame_rate=25.0)),
        ("aerender Error: no composition", Event(error="aerender Error: no composition")),
        ("After Effects error: out of time.", Event(error="After Effects error: out of time.")),
        ("aerender Fehler: keine Komposition", Event(error="aerender Fehler: keine Komposition")),
        ("WARNING:After Effects warning: logged 1 error", None),
    ],
    "nuke": [
        ("Frame 12 (3 of 10)", Event(frame=12, frame_done=True, done=3, total=10)),
        ("Frame 12 (11 of 10)", None),
        ("Writing /out/p.0012.exr took 39.62 seconds", Event(output="/out/p.0012.exr")),
        ("Writing /out/p.0012.exr .1.2.3 took 39.62 seconds", Event(output="/out/p.0012.exr")),
        ("Writing /out/a took b.exr took 0.1 seconds", Event(output="/out/a took b.exr")),
        ("Writing /out/p.0012.exr", None),
        (".1.2.3.4", Event(part=0.4, tells_frames=True)),
        (".9", Event(part=0.9, tells_frames=True)),
        (".1.2.3.4.5.6.7.8.9.", Event(part=0.9, tells_frames=True)),
        ("1.2.3", None),
        ('EXECUTING VIEW "left"', Event(phase="view left")),
        ("Total render time: 4.31 seconds", Event(ended=True)),
        ("FOUNDRY LICENSE ERROR REPORT", Event(error="FOUNDRY LICENSE ERROR REPORT")),
        ("ERROR: Read1: no such file", Event(error="ERROR: Read1: no such file")),
    ],
    "natron": [("Frame rendered: 12 (of many)", Event(frame=12, frame_done=True)), ("Frame 12", None)],
    "fusion": [
        ("Render started at Thu 3:24PM  (Range: 0 to 10)", Event(first=0, last=10)),
        ("Rendered frame 12 (3 of 10), took 0.24 secs", Event(frame=12, frame_done=True, done=3, total=10)),
        ("Render completed successfully at Thu 3:24PM", Event(ended=True)),
        ("Render failed at Thu 3:24PM", Event(error="Render failed at Thu 3:24PM")),
    ],
    "houdini": [
        ("ALF_PROGRESS 42%", Event(part=0.42)),
        ("[12:00:01] ALF_PROGRESS 4%", Event(part=0.04)),
        ("ABC_PROGRESS 42", Event(part=0.42)),
        ("RopNode.render: frame 12", Event(frame=12)),
        ("mantra: Generating Image: /out/a (b).exr (1920x1080)", Event(output="/out/a (b).exr")),
        ("Generating Image: /out/a.exr", None),
        ("Image: /out/a.exr", Event(output="/out/a.exr")),
        ("[12:00:01] husk: Image: /out/a.exr", Event(output="/out/a.exr")),
        ("PDG_RESULT: ropfetch1_1;-1;/out/a.exr;file/image;0", Event(output="/out/a.exr")),
        ("PDG_RESULT: a;b", None),
        ("Error loading geometry a from stdin", Event(error="Error loading geometry a from stdin")),
        (
            "No licenses could be found to run this application.",
            Event(error="No licenses could be found to run this application."),
        ),
    ],
    "arnold": [
        ("12:34:56      32MB   |   45% done - 23 rays/pixel", Event(part=0.45)),
        ("42% done", Event(part=0.42)),
        ("[PROGRESS] 42 percent", Event(part=0.42)),
        ("00:00:10   90MB         | [driver_exr] writing file `/out/a.exr'", Event(output="/out/a.exr")),
        (
            "00:00:10   90MB ERROR   | [ass] no such node",
            Event(error="00:00:10   90MB ERROR   | [ass] no such node"),
        ),
        ("00:00:10   90MB WARNING | [texturesys] 0% found", None),
    ],
    "renderman": [
        ("R90000  42%", Event(part=0.42)),
        ("R90000    7.5%", Event(part=0.075)),
        ("   42%", Event(part=0.42)),
        ("memory 42% used", None),
        ('rman: "/out/a.exr" 1920x1080 mode = rgba', Event(output="/out/a.exr")),
        ("mode = rgba", None),
        ("R10010 {SEVERE} License not found", Event(error="R10010 {SEVERE} License not found")),
    ],
    "vray": [
        ("Rendering image...:  42.3% [        ]", Event(part=0.423, phase="rendering")),
        ("[2026/Nov/5|12:00:00] Rendering image…:  42.3", Event(part=0.423, phase="rendering")),
        ("Rendering image...: done [0h  0m  3.5s]", Event(part=1.0, phase="rendering")),
        ("Building light cache...:  80.0%", Event(phase="building light cache")),
        ("[2026/Nov/5|12:00:00] Starting frame 12.", Event(frame=12)),
        ("SCEN 0.4 progr: begin scene preprocessing for frame 12", Event(frame=12)),
        ('Successfully written image file "/out/a.exr"', Event(output="/out/a.exr")),
        ("[PROGRESS] 42 percent", Event(part=0.42)),
        ("error: Could not obtain a license (1).", Event(error="error: Could not obtain a license (1).")),
    ],
    "redshift": [
        ("INFO : [Redshift] \tBlock 12/48 (7,4) rendered by GPU 0 in 2ms", Event(part=0.25)),
        ("Block 1/0 (7,4) rendered by GPU 0", None),
        ("[Redshift] Rendering frame 5...", Event(frame=5)),
        ("[Redshift] Frame 5 done. Time 1s", Event(frame=5, frame_done=True)),
        ("Frame rendering done - total time 1s", Event(frame_done=True)),
        ("[Redshift] Skipping frame 5", Event(skipped=True)),
        ("[Redshift] Saving: /out/a.exr", Event(output="/out/a.exr")),
        ("[PROGRESS] 42 percent", Event(part=0.42)),
        (
            "Error: [Redshift] License error: (RLM) All licenses in use (-22)",
            Event(error="Error: [Redshift] License error: (RLM) All licenses in use (-22)"),
        ),
        (
            "[Redshift] No devices found. Aborting rendering.",
            Event(error="[Redshift] No devices found. Aborting rendering."),
        ),
    ],
    "c4d": [
        ("Progress: 42%", Event(part=0.42)),
        ("Rendering frame 12 at <Tue 12:00>", Event(frame=12)),
        ("ALF_PROGRESS 42.5", Event(part=0.425)),
        ("Error rendering project", Event(error="Error rendering project")),
        ("RuntimeError: no document", Event(error="RuntimeError: no document")),
    ],
    "max": [
        ("Frame 12 completed", Event(frame=12, frame_done=True)),
        ("progr:  42.0% rendered", Event(part=0.42, tells_frames=True)),
        ("Error occured while rendering job.", Event(error="Error occured while rendering job.")),
        ("Scene loaded", None),
    ],
    "lightwave": [
        ("Beginning frame: 5", Event(frame=5)),
        ("Render Complete 42%", Event(part=0.42)),
        ("Finished frame: 5", Event(frame=5, frame_done=True)),
        (r"Writing RGB image to T:\out\a_002.jpg", Event(output=r"T:\out\a_002.jpg")),
        ("Pass completed", None),
    ],
    "clarisse": [
        ("Progress for project://a/image: 42%", Event(part=0.42, tells_frames=True)),
        ("Saving Image:", Event(frame_done=True)),
        ("  File '/out/a.exr'", Event(output="/out/a.exr")),
        ("Loading", None),
    ],
    "openjd": [
        ("openjd_progress: 42.5", Event(percent=42.5)),
        ("openjd_progress: 420", Event(percent=100.0)),
        ("openjd_progress: much", None),
        ("openjd_status: Loading the scene", Event(phase="Loading the scene")),
        ("openjd_status: ", None),
        ("openjd_fail: No license", Event(error="No license")),
        ("print openjd_progress: 3", None),
    ],
    "alf": [
        ("ALF_PROGRESS 42%", Event(part=0.42)),
        ("TR_PROGRESS 042%", Event(part=0.42)),
        ("ALF_PROGRESS 42.5", Event(part=0.425)),
        ("TR_EXIT_STATUS 0", Event(ended=True)),
        ("TR_EXIT_STATUS 3", Event(error="TR_EXIT_STATUS 3")),
        ("ALF_PROGRESS", None),
    ],
    "cgru": [
        ("PROGRESS: 42%", Event(part=0.42)),
        ("PROGRESS:  0:00:04:29 (150): 3 Seconds", None),
        ("FRAME: ", Event(frame_started=True)),
        ("FRAME: 12", Event(frame=12)),
        ("ACTIVITY: beauty", Event(phase="beauty")),
        ("@IMAGE@/out/a.exr", Event(output="/out/a.exr")),
        ("[ PARSER ERROR ]", Event(error="[ PARSER ERROR ]")),
        ("[ PARSER FINISHED SUCCESS ]", Event(ended=True)),
        ("REPORT: hello", None),
    ],
    "generic": [
        ("PROGRESS: 42%", Event(part=0.42)),
        ("frame 3 of 10", Event(frame=3, done=2, total=10)),
        ("Rendering frame: 3/10 ...", Event(frame=3, done=2, total=10)),
        ("Rendered frame 3 of 10", Event(frame=3, frame_done=True, done=3, total=10)),
        ("frame 30 of 10", None),
        ("rendering frame 12", Event(frame=12)),
        ("Finished frame #12 in 3 s", Event(frame=12, frame_done=True)),
        ("Frame 12 completed", Event(frame=12, frame_done=True)),
        ("42%", Event(part=0.42)),
        ("Rendered 1000 of 4800 pixels (20%)", Event(part=0.2)),
        (" 42%|####      | 42/100 [00:01<00:02]", Event(part=0.42)),
        ("99,5 % done", Event(part=0.995)),
        ("[ 10/20] 42% and 43%", None),
        ("CPU usage 85%", None),
        ("Downloading textures 42%", None),
        ("142%", None),
        ("-42%", None),
        ("%42%", None),
        ("url?a=%20b", None),
        ("ValueError: wrong", Event(error="ValueError: wrong")),
        ("[12:00:01] FATAL: no disk", Event(error="[12:00:01] FATAL: no disk")),
        ("0 errors", None),
        ("error", None),
        ("Segmentation fault (core dumped)", Event(error="Segmentation fault (core dumped)")),
    ],
}


@pytest.mark.parametrize(
    ("name", "line", "event"), [(name, line, event) for name, lines in LINES.items() for line, event in lines]
)
def test_lines(name: str, line: str, event: Event | None) -> None:
    assert FORMATS[name](line) == event


def test_every_format_has_lines() -> None:
    assert LINES.keys() | {"ffmpeg", "blender"} == FORMATS.keys()


@pytest.mark.parametrize(
    ("timecode", "frame_rate", "frames"),
    [
        (Timecode(10, 12), 25.0, 262),
        (Timecode(10, 0), 23.976, 240),
        (Timecode(60, 2, is_drop_frame=True), 29.97, 1800),
        (Timecode(600, 0, is_drop_frame=True), 29.97, 17982),
        (Timecode(600, 0, is_drop_frame=True), 59.94, 35964),
    ],
)
def test_timecode_has_number_of_frames(timecode: Timecode, frame_rate: float, frames: int) -> None:
    assert timecode.frame_count(frame_rate) == frames
