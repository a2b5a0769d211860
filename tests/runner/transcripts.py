"""What renderers print for a whole render, shortened, and what is known after it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Transcript:
    """The lines of one render."""

    name: str
    format: str
    lines: str
    percents: list[float | None]
    """The different percentages, in their order."""
    frames: tuple[int | None, int | None]
    """Done and in total, at the end."""
    outputs: list[str] = field(default_factory=list)
    wanted: str | None = None
    """The value of --frames."""
    error: str | None = None
    is_recognised: bool = True
    """Whether the format is recognised by its lines."""


TRANSCRIPTS = [
    Transcript(
        name="ffmpeg",
        format="ffmpeg",
        lines="""\
Input #0, mov,mp4,m4a,3gp,3g2,mj2, from '/in/a.mp4':
  Duration: 00:00:10.00, start: 0.000000, bitrate: 18 kb/s
  Stream #0:0[0x1](und): Video: h264 (High), yuv444p, 64x64, 12 kb/s, 25 fps, 25 tbr, 12800 tbn
Output #0, mp4, to '/out/title.mp4':
frame=    1 fps=0.0 q=0.0 size=       0kB time=00:00:00.00 bitrate=N/A speed=   0x
frame=   50 fps=0.0 q=-1.0 size=       4kB time=00:00:02.00 bitrate=  19.6kbits/s speed=19.4x
frame=  250 fps=0.0 q=-1.0 Lsize=       4kB time=00:00:09.88 bitrate=  19.6kbits/s speed=19.4x
video:3kB audio:0kB subtitle:0kB other streams:0kB global headers:0kB muxing overhead: 47.213326%""",
        percents=[0, 20, 98.8],
        frames=(250, None),
        outputs=["/out/title.mp4"],
    ),
    Transcript(
        name="ffmpeg -progress, of 100 frames",
        format="ffmpeg",
        wanted="1-100",
        lines="""\
Output #0, mp4, to '/out/title.mp4':
frame=1
fps=0.00
bitrate=N/A
out_time_us=0
out_time_ms=0
out_time=00:00:00.000000
speed=   0x
progress=continue
frame=50
out_time_us=1880078
progress=continue
frame=100
progress=end""",
        percents=[1, 50, 99],
        frames=(100, 100),
        outputs=["/out/title.mp4"],
    ),
    Transcript(
        name="ffmpeg that fails",
        format="ffmpeg",
        lines="""\
Output #0, mp4, to '/out/title.mp4':
Error while filtering: No space left on device
Conversion failed!""",
        percents=[],
        frames=(None, None),
        outputs=["/out/title.mp4"],
        error="Error while filtering: No space left on device",
    ),
    Transcript(
        name="Blender 2.79, Cycles, two frames of tiles",
        format="blender",
        wanted="1-2",
        lines="""\
Fra:1 Mem:8.55M (0.00M, Peak 29.22M) | Time:00:00.13 | Scene, RenderLayer | Updating Mesh
Fra:1 Mem:8.55M (0.00M, Peak 29.22M) | Time:00:01.13 | Scene, RenderLayer | Path Tracing Tile 1/2
Fra:1 Mem:8.55M (0.00M, Peak 29.22M) | Time:00:02.13 | Scene, RenderLayer | Path Tracing Tile 2/2
Fra:1 Mem:8.55M (0.00M, Peak 29.22M) | Time:00:02.13 | Scene, Foreground | Path Tracing Tile 1/2
Saved: '/out/0001.png'
 Time: 00:02.91 (Saving: 00:00.02)

Fra:2 Mem:8.55M (0.00M, Peak 29.22M) | Time:00:01.13 | Scene, RenderLayer | Path Tracing Tile 1/2
Saved: '/out/0002.png'
 Time: 00:02.91 (Saving: 00:00.02)

Blender quit""",
        percents=[0, 25, 50, 75, 99],
        frames=(2, 2),
        outputs=["/out/0001.png", "/out/0002.png"],
    ),
    Transcript(
        name="Blender 3.4, Cycles, frames not known",
        format="blender",
        lines="""\
Blender 3.4.1
Fra:1 Mem:49.06M (Peak 49.60M) | Time:00:00.25 | Mem:3.36M, Peak:3.36M | Scene, ViewLayer | Sample 1/4
Fra:1 Mem:49.06M (Peak 49.60M) | Time:00:00.25 | Mem:3.36M, Peak:3.36M | Scene, ViewLayer | Sample 4/4
Saved: '/out/0001.png'
 Time: 00:27.91 (Saving: 00:00.02)
Fra:2 Mem:49.06M (Peak 49.60M) | Time:00:00.25 | Mem:3.36M, Peak:3.36M | Scene, ViewLayer | Sample 1/4""",
        percents=[],
        frames=(1, None),
        outputs=["/out/0001.png"],
    ),
    Transcript(
        name="Blender 4.5, EEVEE, a movie",
        format="blender",
        wanted="1-2",
        lines="""\
Fra:1 Mem:18.12M (Peak 19.17M) | Time:00:00.09 | Syncing Cube
Fra:1 Mem:18.12M (Peak 19.17M) | Time:00:00.09 | Rendering 1 / 64 samples
Fra:1 Mem:18.13M (Peak 19.17M) | Time:00:00.11 | Rendering 64 / 64 samples
Append frame 1
 Time: 00:00.23 (Saving: 00:00.06)
Fra:2 Mem:18.12M (Peak 19.17M) | Time:00:00.09 | Rendering 32 / 64 samples
Append frame 2
 Time: 00:00.23 (Saving: 00:00.06)""",
        percents=[0, 0.8, 50, 75, 99],
        frames=(2, 2),
    ),
    Transcript(
        name="Blender 5, an animation with existing frames",
        format="blender",
        lines="""\
00:00.001  blend            | Read blend: "/in/scene.blend"
00:00.100  render           | Rendering animation (frames 1..4)
00:00.110  render           | Skipping existing frame "/out/0001.png"
00:00.110  render           | Rendering frame 2
00:04.230  render           | Fra: 2 | Remaining: 01:43.73 | Mem: 1699M | Sample 64/128
00:04.687  render           | Saved: '/out/0002.png'
00:04.687  render           | Saved: '/out/depth0002.exr'
00:04.687  render           | Time: 00:04.49 (Saving: 00:00.05)
00:05.100  render           | Rendering frame 3
00:05.253  render           | Fra: 3 | Rendering 8 / 16 samples
00:05.400  cycles           | ERROR CUDA error: Out of memory in cuMemAlloc""",
        percents=[25, 37.5, 50, 62.5],
        frames=(2, 4),
        outputs=["/out/0001.png", "/out/0002.png", "/out/depth0002.exr"],
        error="ERROR CUDA error: Out of memory in cuMemAlloc",
    ),
    Transcript(
        name="Blender 5, one frame",
        format="blender",
        lines="""\
00:00.100  render           | Rendering single frame (frame 7)
00:00.110  render           | Rendering frame 7
00:00.300  render           | Fra: 7 | Rendering 8 / 16 samples
00:00.687  render           | Saved: '/out/0007.png'
00:00.687  render           | Time: 00:00.49 (Saving: 00:00.05)""",
        percents=[0, 50, 99],
        frames=(1, 1),
        outputs=["/out/0007.png"],
    ),
    Transcript(
        name="aerender",
        format="aerender",
        lines="""\
PROGRESS:  Launching After Effects...
PROGRESS:  Output To: C:\\out\\title.mov
PROGRESS:  Start: 0:00:00:00
PROGRESS:  End: 0:00:00:09
PROGRESS:  Duration: 0:00:00:10
PROGRESS:  Frame Rate: 30.00 (comp)
PROGRESS:  0:00:00:00 (1): 0 Seconds
PROGRESS:  0:00:00:02 (3): 0 Seconds
PROGRESS:  0:00:00:01 (2): 0 Seconds
PROGRESS:  Total Time Elapsed: 8 Seconds""",
        percents=[10, 20, 30],
        frames=(3, 10),
        outputs=["C:\\out\\title.mov"],
    ),
    Transcript(
        name="aerender in German, that fails",
        format="aerender",
        lines="""\
Anfang: 0:00:02:00
Dauer: 0:00:04:00
FORTSCHRITT:  0:00:02:00 (1): 0 Sekunden
FORTSCHRITT:  0:00:04:00 (49): 1 Sekunden
aerender Fehler: Schrift fehlt""",
        percents=[0, 50],
        frames=(2, None),
        error="aerender Fehler: Schrift fehlt",
    ),
    Transcript(
        name="Nuke",
        format="nuke",
        lines="""\
Nuke 15.1v3, 64 bit, built Sep 24 2025.
.1.2
.1.2.3.4.5.6.7.8.9
Writing /out/p.0011.exr took 39.62 seconds
Frame 11 (1 of 4)
.1.2.3.4
Writing /out/p.0012.exr took 39.62 seconds
Frame 12 (2 of 4)
ERROR: Read2: /in/plate.0013.exr: no such file""",
        percents=[25, 35, 50],
        frames=(2, 4),
        outputs=["/out/p.0011.exr", "/out/p.0012.exr"],
        error="ERROR: Read2: /in/plate.0013.exr: no such file",
    ),
    Transcript(
        name="Nuke with --frames",
        format="nuke",
        wanted="11-14",
        lines="""\
.1.2
Writing /out/p.0011.exr took 39.62 seconds
Frame 11 (1 of 4)
.1.2.3.4
Frame 12 (2 of 4)""",
        percents=[5, 25, 35, 50],
        frames=(2, 4),
        outputs=["/out/p.0011.exr"],
    ),
    Transcript(
        name="Mantra, three frames by one bar",
        format="houdini",
        wanted="1-3",
        lines="""\
mantra: Generating Image: /out/a.0001.exr (1920x1080)
ALF_PROGRESS 0%
ALF_PROGRESS 50%
ALF_PROGRESS 100%
mantra: Generating Image: /out/a.0002.exr (1920x1080)
ALF_PROGRESS 0%
ALF_PROGRESS 50%
ALF_PROGRESS 100%
mantra: Generating Image: /out/a.0003.exr (1920x1080)
ALF_PROGRESS 0%
ALF_PROGRESS 90%""",
        percents=[0, 16.7, 33.3, 50, 66.7, 96.7],
        frames=(2, 3),
        outputs=["/out/a.0001.exr", "/out/a.0002.exr", "/out/a.0003.exr"],
    ),
    Transcript(
        name="RenderMan, one frame",
        format="renderman",
        lines="""\
rman: "/out/a.exr" 1920x1080 mode = rgba
R90000   0%
R90000  50%
R90000  99%""",
        percents=[0, 50, 99],
        frames=(None, None),
        outputs=["/out/a.exr"],
    ),
    Transcript(
        name="Alfred, ten frames",
        format="alf",
        wanted="1-10",
        lines="ALF_PROGRESS 50%\nALF_PROGRESS 100%\nALF_PROGRESS 0%\nALF_PROGRESS 50%",
        percents=[5, 10, 15],
        frames=(1, 10),
        is_recognised=False,
    ),
    Transcript(
        name="V-Ray",
        format="vray",
        wanted="12-13",
        lines="""\
[2026/Nov/5|12:00:00] Starting frame 12.
Building light cache...:  80.0%
Rendering image...:  50.0% [        ]
Rendering image...: done [0h  0m  3.5s]
Successfully written image file "/out/a.0012.exr"
[2026/Nov/5|12:00:09] Starting frame 13.
Rendering image...:  50.0% [        ]""",
        percents=[0, 25, 50, 75],
        frames=(1, 2),
        outputs=["/out/a.0012.exr"],
    ),
    Transcript(
        name="Redshift",
        format="redshift",
        wanted="5-6",
        lines="""\
[Redshift] Rendering frame 5...
[Redshift] \tBlock 24/48 (7,4) rendered by GPU 0 in 2ms
[Redshift] \tBlock 12/48 (7,4) rendered by GPU 1 in 2ms
[Redshift] Saving: /out/a.0005.exr
[Redshift] Frame 5 done. Time 1s
[Redshift] Rendering frame 6...
[Redshift] License error: (RLM) All licenses in use (-22)""",
        percents=[0, 25, 50],
        frames=(1, 2),
        outputs=["/out/a.0005.exr"],
        error="[Redshift] License error: (RLM) All licenses in use (-22)",
    ),
    Transcript(
        name="Arnold",
        format="arnold",
        lines="""\
00:00:01   90MB         | starting 8 bucket workers
00:00:02   90MB         |     5% done - 23 rays/pixel
00:00:10   90MB         |   100% done - 23 rays/pixel
00:00:10   90MB         | [driver_exr] writing file `/out/a.exr'""",
        percents=[5, 99],
        frames=(None, None),
        outputs=["/out/a.exr"],
        is_recognised=False,
    ),
    Transcript(
        name="Cinema 4D",
        format="c4d",
        wanted="12-13",
        lines="Rendering frame 12\nProgress: 50%\nProgress: 100%\nRendering frame 13\nProgress: 50%",
        percents=[0, 25, 50, 75],
        frames=(1, 2),
        is_recognised=False,
    ),
    Transcript(
        name="3ds Max, frames not known",
        format="max",
        lines="progr: 90.0% rendered\nFrame 12 completed\nprogr: 10.0% rendered\nFrame 13 completed",
        percents=[],
        frames=(2, None),
        is_recognised=False,
    ),
    Transcript(
        name="Clarisse",
        format="clarisse",
        wanted="1-4",
        lines="""\
Progress for project://scene/image: 50%
Progress for project://scene/image: 100%
Saving Image:
  File '/out/a.0001.exr'
Progress for project://scene/image: 50%""",
        percents=[12.5, 25, 37.5],
        frames=(1, 4),
        outputs=["/out/a.0001.exr"],
    ),
    Transcript(
        name="Open Job Description",
        format="openjd",
        lines="openjd_status: Loading\nopenjd_progress: 42.5\nopenjd_fail: No license",
        percents=[42.5],
        frames=(None, None),
        error="No license",
        is_recognised=False,
    ),
    Transcript(
        name="CGRU's generic parser",
        format="cgru",
        wanted="1-2",
        lines="FRAME: \nPROGRESS: 50%\n@IMAGE@/out/a.1.exr\nFRAME: \nPROGRESS: 50%",
        percents=[0, 25, 50, 75],
        frames=(1, 2),
        outputs=["/out/a.1.exr"],
        is_recognised=False,
    ),
    Transcript(
        name="a script",
        format="generic",
        lines="frame 1 of 4\n50%\nframe 2 of 4\nframe 3 of 4\nValueError: no camera",
        percents=[0, 12.5, 25, 50],
        frames=(2, 4),
        error="ValueError: no camera",
        is_recognised=False,
    ),
]
