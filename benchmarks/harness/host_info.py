"""Describes the host and its load, and assigns cores to both sides of a measurement."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@cache
def cores() -> tuple[frozenset[int], frozenset[int]]:
    """Return the core of the server under test and the cores of the load; the same if there is only one."""
    usable = _usable()
    return frozenset(usable[:1]), frozenset(usable[1:2] or usable)


def all_cores() -> frozenset[int]:
    """Return the cores of both sides."""
    server, load = cores()
    return server | load


def _format_cores(some_cores: frozenset[int]) -> str:
    return ",".join(map(str, sorted(some_cores)))


@cache
def _usable() -> list[int]:
    """List the cores that this run may use, as it was started."""
    return sorted(os.sched_getaffinity(0))


def describe() -> str:
    """Name CPU, kernel and programs in one paragraph."""
    programs = [f"Python {platform.python_version()}"]
    programs += [f"{name} {_version(name)}" for name in ("aiohttp", "uvloop")]
    programs.append(nginx_version() or "no nginx")
    return f"{_processor()}, {len(_usable())} cores, Linux {platform.release()}; {', '.join(programs)}"


def describe_placement() -> str:
    """Say where server and load run."""
    server, load = map(_format_cores, cores())
    return (
        f"server on core {server}, load on core {load}" if server != load else "one core for server and load"
    )


def describe_shared_placement() -> str:
    """Say so for a server that also runs on the load's cores."""
    return f"server on cores {_format_cores(all_cores())}, load on core {_format_cores(cores()[1])}"


def load_average() -> str:
    """Return the load average of the last minute and the last five."""
    return "load average {:.2f} {:.2f}".format(*os.getloadavg()[:2])


def nginx_version() -> str | None:
    """Return the version of the nginx on the PATH; None if there is none."""
    if shutil.which("nginx") is None:
        return None
    output = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr
    return output.rpartition(": ")[2].strip().replace("/", " ")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
