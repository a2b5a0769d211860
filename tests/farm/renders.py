"""A program that renders as a farm does: it writes a film in pieces, and tells jobsvc.farm about each frame.

python renders.py ROOT ID FRAMES [PAUSE_S]
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any, Final

FRAME: Final = b"one frame of the film\n"


def load_farm() -> Any:
    """Import jobsvc/farm.py as a copy of it in a renderer is: alone."""
    path = Path(__file__).parents[2] / "jobsvc" / "farm.py"
    spec = importlib.util.spec_from_file_location("jobsvc_farm", path)
    assert spec is not None
    assert spec.loader is not None
    farm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(farm)
    return farm


def main(root: str, job_id: str, frames: int, pause: float) -> None:
    """Render one attempt."""
    farm = load_farm()
    farm.STABLE_S = 0.02
    print("begins", flush=True)  # noqa: T201 - for the program that ends this one
    with farm.Job.create(root, owner="acme", job_id=job_id, output="output/film.mp4") as job:
        new = job.path / "output" / ".film.part"
        with new.open("wb") as film:
            for frame in range(1, frames + 1):
                film.write(FRAME)
                film.flush()
                job.log(f"frame {frame}")
                job.progress(frames=(frame, frames))
                time.sleep(pause)
        new.rename(job.path / "output" / "film.mp4")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
