"""Bring what Flamenco has rendered from its storage into the directory of a job."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath


def add_outputs(job, storage, settings):
    """Link the frames of a job into its directory, and the film that Flamenco makes of them.

    They are those of Flamenco's own job type. Raises OSError if there are none.
    """
    path, extension = settings.get("render_output_path"), settings.get("image_file_extension")
    if not path or not extension:
        return
    directory, _, name = path.replace("\\", "/").rpartition("/")
    head, digits, tail = re.fullmatch(r"(.*?)(#*)([^#]*)", name, re.DOTALL).groups()
    if not digits:
        head, digits, tail = name, "####", ""  # as Blender does
    tail += extension
    is_frame = re.compile(rf"{re.escape(head)}-?\d{{{len(digits)},}}{re.escape(tail)}").fullmatch
    frames = str(settings.get("frames"))
    if "," in frames:  # 1,5-9 becomes 1-9
        numbers = re.findall(r"\d+", frames)
        frames = "-".join(numbers[:1] + numbers[1:][-1:])
    film = f"{PurePosixPath(str(settings.get('blendfile'))).stem.replace('.flamenco', '')}-{frames}.mp4"
    folder = _open_directory(storage, directory)
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
        found = [name for name in names if is_frame(name)]
        if not found:
            raise FileNotFoundError(f"{directory} has no frames {head}{digits}{tail}")
        (job.path / "output").mkdir(exist_ok=True)
        for name in {*found, film} & names:
            _link_or_copy(name, folder, job.path / "output" / _plain(name))
    finally:
        os.close(folder)
    job.add_output("frames", "output/" + _plain(f"{head}\0{tail}").replace("\0", digits), role="main")
    if film in names:
        job.add_output("preview", f"output/{_plain(film)}", role="preview")


def _open_directory(storage, directory):
    """Open a directory if it is below --storage, after links too: the path comes from who submits the job."""
    for name, mounted_at in storage:
        if directory == name or directory.startswith(f"{name}/"):
            path = mounted_at / directory[len(name) :].lstrip("/")
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            real = Path(f"/proc/self/fd/{folder}").readlink()
            if mounted_at in (real, *real.parents):
                return folder
            os.close(folder)
    raise PermissionError(f"{directory} is not below --storage")


def _link_or_copy(name, folder, target):
    target.unlink(missing_ok=True)
    try:
        os.link(name, target, src_dir_fd=folder, follow_symlinks=False)
    except OSError:  # another file system, or not allowed
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        with os.fdopen(file, "rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1024 * 1024)


def _plain(name):
    """Return a file name without characters that mean a frame number, or that hide the file."""
    return re.sub(r"[#@%$/]|^\.", "_", name)
