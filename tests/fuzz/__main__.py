"""Fuzz the connection: `python -m tests.fuzz --count 1000000 --processes 2`.

Prints the seed and, for a failure, the fewest bytes that reproduce it. The same seed sends the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import get_context

from tests.fuzz.session import run, run_behind
from tests.programs.proxies import PROXIES


def main() -> int:
    """Fuzz, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="requests, in all processes together")
    parser.add_argument("--seed", type=int, default=None, help="the first process's; by default the time")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--behind", choices=PROXIES, help="send them through this proxy, beside victims")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    print(f"seed {seed}, {options.count} requests, {options.processes} processes", flush=True)
    share = options.count // options.processes
    if options.behind:
        run_behind(options.behind, seed, options.count)
        return 0
    if options.processes == 1:
        run(seed, share)
        return 0
    children = [
        get_context("spawn").Process(target=run, args=(seed + n, share)) for n in range(options.processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return int(any(child.exitcode for child in children))


if __name__ == "__main__":
    sys.exit(main())
