"""Print the service's speed as ratios to baselines that are measured in turn with it.

`python -m benchmarks [NAME...] [--rounds N] [--quick] [--scratch DIR]`; `--list` names the benchmarks.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib import import_module
from types import ModuleType
from typing import Final

from benchmarks.harness import host_info, table
from benchmarks.harness.interleave import Plan

DEFAULT_BENCHMARKS: Final = ("status", "listing", "download", "memory")
OPTIONAL_BENCHMARKS: Final = (
    "archive",
    "client",
    "page",
    "behind-tls",
    "farm-writer",
    "many-writers",
    "hostile",
    "hostile-unlimited",
    "shared-state",
    "slow-storage",
    "network",
    "events",
    "digest",
    "index",
    "index-million",
    "replicas",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to run; else {', '.join(DEFAULT_BENCHMARKS)}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement [5]")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, to check that it runs")
    parser.add_argument(
        "--scratch", metavar="DIR", help="directory to work in [the system's temporary directory]"
    )
    parser.add_argument("--list", action="store_true", help="list the benchmarks and exit")
    arguments = parser.parse_args()
    known = DEFAULT_BENCHMARKS + OPTIONAL_BENCHMARKS
    if unknown := set(arguments.names) - set(known):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    if arguments.list:
        for name in known:
            print(f"{name:<19}{(_module(name).__doc__ or '').partition(chr(10))[0]}")
        return
    plan = Plan(rounds=arguments.rounds, quick=arguments.quick, scratch=arguments.scratch)
    print(host_info.describe())
    os.sched_setaffinity(0, host_info.cores()[1])
    print(f"medians of {plan.rounds} rounds (least..most)")
    for name in arguments.names or DEFAULT_BENCHMARKS:
        started_at = time.perf_counter()
        _module(name).run(plan)
        table.note(f"{host_info.load_average()}; {time.perf_counter() - started_at:.0f} s")


def _module(name: str) -> ModuleType:
    return import_module(f"benchmarks.measurements.{name.replace('-', '_')}")


if __name__ == "__main__":
    main()
