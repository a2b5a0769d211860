"""Load by wrk, which needs less CPU time for a request than any Python program."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness.load_generator import Address, Outcome, UnexpectedAnswer
from benchmarks.harness.process import on_cores

_SCRIPT: Final = """
local paths = {{}}
for line in io.lines("{paths}") do paths[#paths + 1] = line end
request = function() return wrk.format("GET", paths[math.random(#paths)]) end
"""
_REQUESTS: Final = re.compile(r"([0-9]+) requests in ([0-9.]+)s")


def installed() -> bool:
    """Return whether wrk is on the PATH."""
    return shutil.which("wrk") is not None


def write_script(folder: Path, paths: Sequence[str]) -> Path:
    """Write a script for wrk that requests these paths at random."""
    (folder / "paths").write_text("".join(f"{path}\n" for path in paths), "utf-8")
    script = folder / "requests.lua"
    script.write_text(_SCRIPT.format(paths=folder / "paths"), "utf-8")
    return script


def run(
    addresses: Sequence[Address],
    script: Path,
    token: str,
    *,
    connections: int,
    seconds: int,
    cores: frozenset[int],
) -> Outcome:
    """Load all addresses at once, each with as many connections. Raises UnexpectedAnswer."""
    cpu = _children_cpu()
    with on_cores(cores):
        running = [_start(address, script, token, connections, seconds) for address in addresses]
    outcome = Outcome()
    for each in running:
        output, _ = each.communicate()
        match = _REQUESTS.search(output)
        if match is None or "Non-2xx" in output or "Socket errors" in output:
            raise UnexpectedAnswer(output)
        outcome.requests += int(match[1])
        outcome.seconds = max(outcome.seconds, float(match[2]))
    outcome.cpu = _children_cpu() - cpu
    return outcome


def _start(
    address: Address, script: Path, token: str, connections: int, seconds: int
) -> subprocess.Popen[str]:
    url = f"http://{address[0]}:{address[1]}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    command += ["-H", f"Authorization: Bearer {token}", url]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
