"""Client commands: a download compared with curl and aria2c, and how long commands take to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.harness import farm, host_info, process, servers, table
from benchmarks.harness.interleave import Measurement, Plan, interleave
from benchmarks.harness.load_generator import Outcome, answer, get, until
from benchmarks.harness.servers import Server

GIB: Final = 1 << 30
JOB: Final = "big-0001"
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only a directory of random name is created in it
"""Where downloads are written to, so that no disk is measured."""
DIGEST_TIMEOUT_S: Final = 120.0
STARTS_PER_ROUND: Final = 10
"""The fastest of them counts: others waited for the processor, or were the first to read the files."""

CURL_TIME_GOAL: Final = table.Goal(at_most=1.5)
ARIA2C_TIME_GOAL: Final = table.Goal(at_most=1)
CURL_CPU_GOAL: Final = table.Goal(at_most=3)
START_GOAL_MS: Final = table.Goal(at_most=150)
IMPORT_GOAL_MS: Final = table.Goal(at_most=60)

JOBSVC: Final = (sys.executable, "-m", "jobsvc")
UNVERIFIED: Final = "jobsvc download --no-verify"
VERIFIED: Final = "jobsvc download"
CURL: Final = "curl -o"
ARIA2C: Final = "aria2c -x4"


class Program:
    """A command that is run to its end; its CPU time is that of all its processes."""

    def __init__(self, name: str, *command: str, variables: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._variables = variables
        self._cpu = 0.0

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        return self._cpu

    def run(self) -> float:
        """Run the command; return its seconds. ChildProcessError."""
        started_at = time.perf_counter()
        running = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment() | self._variables,
            cwd=process.REPOSITORY,
        )
        assert running.stderr is not None
        said = running.stderr.read()
        _, status, used = os.wait4(running.pid, 0)
        seconds = time.perf_counter() - started_at
        running.returncode = os.waitstatus_to_exitcode(status)
        running.stderr.close()
        if running.returncode != 0:
            raise ChildProcessError(f"{self.name} ended with {running.returncode}: {said.decode()[-2000:]}")
        self._cpu += used.ru_utime + used.ru_stime
        return seconds


def run(plan: Plan) -> None:
    """Measure and print."""
    size = int(plan.pick(GIB, GIB // 8))
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("client", plan.scratch))
        root = scratch / "jobs"
        farm.output(root, JOB, size)
        token = servers.token(scratch)
        time.sleep(farm.STABLE_AFTER_S)
        ours = stack.enter_context(servers.jobsvc(root, scratch))
        _wait_for_digest(ours, token)
        in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * size
        to = stack.enter_context(farm.scratch("client", str(MEMORY))) if in_memory else scratch
        where = "to memory" if in_memory else "to a disk"
        _measure_downloads(plan, _downloads(ours, token, to / "film.mp4"), size, to / "film.mp4", where)
        _measure_starts(plan, ours, token)


def _environment() -> dict[str, str]:
    """Return the environment without a proxy, and without settings of jobsvc and Python.

    PYTHONDONTWRITEBYTECODE would let each start compile all modules.
    """
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in proxies and not name.startswith(("JOBSVC_", "XDG_", "PYTHON"))
    }
    return kept | {"PYTHONPATH": str(process.REPOSITORY), "HOME": "/nonexistent"}


def _wait_for_digest(server: Server, token: str) -> None:
    """Wait until the service knows the SHA-256: its computation is measured by `digest`."""
    request = get(f"/api/jobs/{JOB}", token)
    answer(
        server.address,
        get(f"/api/jobs/{JOB}/download", token, Want_Repr_Digest="sha-256=1", Range="bytes=0-0"),
    )
    until(lambda: b"outputSha256" in answer(server.address, request)[1], DIGEST_TIMEOUT_S, pause=0.1)


def _downloads(server: Server, token: str, to: Path) -> list[Program]:
    """Return the programs; each writes the output to `to`."""
    variables = _client_variables(server, token)
    url = f"http://{server.address[0]}:{server.address[1]}/api/jobs/{JOB}/download"
    field = f"Authorization: Bearer {token}"
    aria2c = ("aria2c", "--no-conf", "--quiet", "-x4", "-s4", "--file-allocation=none", f"--header={field}")
    programs = {
        UNVERIFIED: (*JOBSVC, "download", JOB, "-o", str(to), "--no-verify"),
        VERIFIED: (*JOBSVC, "download", JOB, "-o", str(to)),
        CURL: ("curl", "-q", "-sSf", "-H", field, "-o", str(to), url),
        ARIA2C: (*aria2c, "-d", str(to.parent), "-o", to.name, url),
    }
    missing = [command[0] for command in programs.values() if shutil.which(command[0]) is None]
    for program in missing:
        table.note(f"there is no {program} here: no ratio to it")
    return [
        Program(name, *command, variables=variables)
        for name, command in programs.items()
        if command[0] not in missing
    ]


def _client_variables(server: Server, token: str) -> dict[str, str]:
    return {"JOBSVC_URL": f"http://{server.address[0]}:{server.address[1]}", "JOBSVC_TOKEN": token}


def _measure_downloads(plan: Plan, programs: Sequence[Program], size: int, to: Path, where: str) -> None:
    table.title(
        f"client: {size >> 20} MiB from the page cache {where}; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )

    def one(program: Program) -> Outcome:
        seconds = program.run()
        assert to.stat().st_size == size
        to.unlink()
        return Outcome(requests=1, seconds=seconds, received=size)

    results = interleave(plan, programs, one)
    for name, rounds in results.items():
        table.row(name, _seconds(rounds), " s")
        table.row(f"{name}: CPU time", [each.cpu for each in rounds], " s")
    for ours in (UNVERIFIED, VERIFIED):
        _print_ratios(results, ours, required=ours == UNVERIFIED)


def _print_ratios(results: dict[str, list[Measurement]], ours: str, *, required: bool) -> None:
    """Print the ratios to the other programs; the goals are those of downloads without verification."""
    if (curl := results.get(CURL)) is not None:
        goals = (CURL_TIME_GOAL, CURL_CPU_GOAL) if required else (None, None)
        table.ratio(f"time, {ours} / {CURL}", _seconds(results[ours]), _seconds(curl), goals[0])
        used = [[each.cpu for each in rounds] for rounds in (results[ours], curl)]
        table.ratio(f"CPU time, {ours} / {CURL}", used[0], used[1], goals[1])
    if (aria2c := results.get(ARIA2C)) is not None:
        goal = ARIA2C_TIME_GOAL if required else None
        table.ratio(f"time, {ours} / {ARIA2C}", _seconds(results[ours]), _seconds(aria2c), goal)


def _seconds(rounds: Sequence[Measurement]) -> list[float]:
    return [each.outcome.seconds for each in rounds]


def _measure_starts(plan: Plan, server: Server, token: str) -> None:
    table.title(
        f"client: start of commands, the fastest of {STARTS_PER_ROUND} in each round; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )
    variables = _client_variables(server, token)
    bare, imported, version, status = (
        Program(name, *command, variables=variables)
        for name, command in {
            "python -c pass": (sys.executable, "-c", "pass"),
            "python -c 'import jobsvc.client'": (sys.executable, "-c", "import jobsvc.client"),
            "jobsvc --version": (*JOBSVC, "--version"),
            "jobsvc status": (*JOBSVC, "status", JOB),
        }.items()
    )
    took: dict[str, list[float]] = {each.name: [] for each in (bare, imported, version, status)}
    for _ in range(plan.rounds):
        fastest = dict.fromkeys(took, float("inf"))
        for _ in range(int(plan.pick(STARTS_PER_ROUND, 3))):
            for program in (bare, imported, version, status):
                fastest[program.name] = min(1e3 * program.run(), fastest[program.name])
        for name, value in fastest.items():
            took[name].append(value)
    for name, values in took.items():
        table.row(name, values, " ms", START_GOAL_MS if name.startswith("jobsvc") else None)
    added = [one - other for one, other in zip(took[imported.name], took[bare.name], strict=True)]
    table.row("import jobsvc.client", added, " ms", IMPORT_GOAL_MS)
