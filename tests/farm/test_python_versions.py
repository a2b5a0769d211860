"""The writer runs in the Python of renderers, copied, without the package and what it depends on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.farm.conftest import Read
from tests.farm.test_killed_writers import RENDERS
from tests.programs.external_programs import run

VERSIONS: Final = ("3.9", "3.10", "3.11", "3.12", "3.13")
PYENV: Final = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))


def find_python(version: str) -> str | None:
    """Return a Python of a version: one of pyenv, else from the PATH."""
    installed = sorted(PYENV.glob(f"versions/{version}.*/bin/python{version}"))
    return str(installed[-1]) if installed else shutil.which(f"python{version}")


@pytest.mark.parametrize("version", VERSIONS)
async def test_job_is_written_by(version: str, jobs_root: Path, read: Read) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"python{version} is not installed")
    # -I -S: without the folder of the project and installed packages
    ran = await run(python, "-I", "-S", RENDERS, jobs_root, "title", "5")
    assert ran.exit_code == 0, ran.stderr
    assert (read()["status"], read()["framesDone"]) == ("completed", 5)
