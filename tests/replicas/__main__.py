"""Run replicas behind a proxy while they and Redis are killed: `python -m tests.replicas --proxy nginx`.

Prints counts, figures and faults. The exit code is 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

import uvloop

from tests.replicas.burst import burst
from tests.replicas.chaos import Chaos, chaos

PROXIES: Final = {"nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy", "apache": "Apache"}
"""Names in tests.deploy by those on the command line."""


def main() -> int:
    """Run and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.replicas", description=__doc__)
    parser.add_argument("--proxy", choices=PROXIES, default="nginx")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--burst", type=int, metavar="N", help="only N requests at once against a budget")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--redis-restarts", type=int, default=0)
    parser.add_argument("--downloads", type=int, default=50)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--polls", type=float, default=500, help="a second")
    parser.add_argument("--alone", action="store_true", help="without Redis")
    options = parser.parse_args()
    if options.burst:
        report = uvloop.run(
            burst(
                PROXIES[options.proxy],
                options.replicas,
                requests=options.burst,
                redis_restarts=options.redis_restarts,
            )
        )
    else:
        report = uvloop.run(chaos(_plan(options)))
    print(f"{options.proxy}, {options.replicas} replicas\n{report}")
    return int(bool(report.faults))


def _plan(options: argparse.Namespace) -> Chaos:
    return Chaos(
        PROXIES[options.proxy],
        options.replicas,
        seconds=options.seconds,
        redis_restarts=options.redis_restarts,
        downloads=options.downloads,
        client_downloads=options.downloads // 10,
        streams=options.streams,
        polls_per_s=options.polls,
        shared=not options.alone,
    )


if __name__ == "__main__":
    sys.exit(main())
