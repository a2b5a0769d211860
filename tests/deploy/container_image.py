"""Builds the image of deploy/container without a registry.

The base is a minimal Debian, made by mmdebstrap from the package sources of this host. pip on this host
downloads the dependencies: the build itself needs no network.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.programs.external_programs import SEARCH_PATH, without_coverage
from tests.programs.service_runner import PROJECT

BUILD_TIMEOUT_S: Final = 300.0
PROGRAMS: Final = ("buildah", "mmdebstrap", "unshare", "setpriv")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was built, and its unpacked root file system."""

    config: dict[str, Any]
    """As in the Docker image specification: Env, User, Entrypoint, Cmd, Healthcheck, Labels."""
    root: Path


def build(folder: Path) -> Image:
    """Build the image in `folder`. Skips the test if there is no base or if pip cannot download."""
    store = _Store(folder)
    python = store.create_base("base")
    wheels = _wheels(folder / "wheels", python)
    pip_config = folder / "pip.conf"
    pip_config.write_text(
        "[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\n"
    )
    store.run(
        *("bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "--tag", "jobsvc"),
        *("--build-arg", "BASE=localhost/base", "--build-arg", "VERSION=1.2.3"),
        *("--volume", f"{pip_config}:/etc/pip.conf:ro", "--volume", f"{wheels}:/wheels:ro"),
        *("--file", PROJECT / "deploy" / "container" / "Containerfile", PROJECT),
    )
    described = json.loads(store.run("inspect", "--type", "image", "jobsvc"))
    container = store.run("from", "--pull-never", "localhost/jobsvc")
    return Image(described["Docker"]["config"], Path(store.run("mount", container)))


@dataclass(frozen=True, slots=True)
class _Store:
    """A store of images in a folder. Its driver copies: it works on every file system."""

    folder: Path

    def run(self, *words: object) -> str:
        """Run a command of buildah and return its output."""
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        done = _run("buildah", *store, *words)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def create_base(self, name: str) -> str:
        """Create an image with Debian's Python; return the version of Python, such as 3.11."""
        container = self.run("from", "scratch")
        root = Path(self.run("mount", container))
        _unpack_debian(root)
        (python,) = (root / "usr/bin").glob("python3.*[0-9]")
        self.run("commit", "--quiet", "--disable-compression", container, name)
        self.run("rm", container)
        return python.name.removeprefix("python")


def _unpack_debian(root: Path) -> None:
    """Unpack Debian's Python with its dependencies; skip the test if this host's sources have none."""
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    options = ("--quiet", "--variant=extract", "--include=python3-venv,dash,coreutils", *excluded)
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")
    apt = Path("/etc/apt")
    files = (apt / "sources.list", *sorted((apt / "sources.list.d").iterdir()))
    sources = [file for file in files if file.is_file() and file.suffix in {".list", ".sources"}]
    done = _run("mmdebstrap", *options, "--format=directory", suite, root, *sources)
    if done.returncode != 0:
        pytest.skip(f"no base image: mmdebstrap {suite}: {done.stderr.strip()[-300:]}")


def _wheels(target: Path, python: str) -> Path:
    """Download the wheels of the dependencies for this Python; skip the test if there is no index."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    # Debian 12 has Python 3.11.2, for which redis needs one more package than for this process's.
    wanted = (*project["project"]["dependencies"], *project["build-system"]["requires"], "async-timeout")
    options = ("--quiet", "--dest", target, "--only-binary=:all:", "--python-version", python)
    done = _run(sys.executable, "-m", "pip", "download", *options, *wanted)
    if done.returncode != 0:
        pytest.skip(f"pip cannot download the dependencies: {done.stderr.strip()[-300:]}")
    return target


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command with the lowest priority: other tests, some of which measure times, run meanwhile."""
    return subprocess.run(
        ["nice", "-n", "19", *map(str, command)],
        env={**without_coverage(), "PATH": SEARCH_PATH},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )


def can_build() -> pytest.MarkDecorator:
    """Skip a test by name where images cannot be built or run."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None]
    reason = ""
    if missing:
        reason = f"not installed: {', '.join(missing)}"
    elif _run("unshare", "--mount", "--pid", "--fork", "true").returncode != 0:
        reason = "this process must not create namespaces"
    return pytest.mark.skipif(bool(reason), reason=reason)
