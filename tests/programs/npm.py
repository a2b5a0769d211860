"""Packages of npm's registry, through npm itself."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

_DEADLINE_S: Final = 60.0


def package_files(package: str, version: str, *paths: str) -> list[bytes]:
    """Return files of a package, by their paths in it; skip the test if npm or its registry is not there.

    Nothing of the package is run or installed.
    """
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("not installed: npm")
    with TemporaryDirectory() as folder:
        pack = (npm, "pack", "--silent", "--ignore-scripts", f"{package}@{version}")
        try:
            subprocess.run(pack, cwd=folder, check=True, capture_output=True, timeout=_DEADLINE_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip(f"npm cannot deliver {package}@{version}")
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as members:
            return [_read(members, f"package/{path}") for path in paths]


def install(folder: Path, *packages: str) -> Path:
    """Install packages into a folder, and return their directory; skip the test if that is not possible."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("not installed: npm")
    options = ("--silent", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund", "--no-save")
    command = (npm, "install", *options, "--prefix", str(folder), *packages)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_DEADLINE_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"npm cannot install {' '.join(packages)}")
    return folder / "node_modules"


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None, name
    return member.read()
