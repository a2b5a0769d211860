"""Runs the fuzzer in one process."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from random import Random

import structlog

from tests.fuzz.generator import Generator
from tests.fuzz.harness import Checker, services, shrunk
from tests.fuzz.proxied import Desync, fuzz_behind


async def fuzz(seed: int, count: int) -> int:
    """Send this many requests to every variant; return the number sent. SystemExit at the first failure."""
    generated = 0
    with tempfile.TemporaryDirectory(prefix="jobsvc-fuzz-") as folder:
        async with services(Path(folder)) as (ports, tokens):
            generator, checker = Generator(Random(seed), tokens), Checker(ports)
            while generated < count:
                stream = generator.stream()
                generated += len(stream.requests)
                if faults := await checker.faults(stream):
                    print(f"seed {seed}: {faults}")
                    stream = await shrunk(checker, stream)
                    for fault in await checker.faults(stream):
                        print(f"seed {seed}: {fault}")
                    print(f"pieces: {stream.pieces()!r}")
                    raise SystemExit(1)
    return generated


async def behind(program: str, seed: int, count: int) -> None:
    """Send this many requests through a proxy, with victims; SystemExit at the first failure."""
    with tempfile.TemporaryDirectory(prefix="jobsvc-fuzz-") as folder:
        async with services(Path(folder)) as (ports, tokens):
            try:
                summary = await fuzz_behind(
                    program, Path(folder), ports.variants["fast path"], tokens, seed, count
                )
            except Desync as fault:
                print(f"seed {seed}, behind {program}: {fault}")
                raise SystemExit(1) from fault
    print(f"seed {seed}, behind {summary}, no fault")


def run_behind(program: str, seed: int, count: int) -> None:
    """Fuzz behind a proxy, without a log."""
    _silence()
    asyncio.run(behind(program, seed, count))


def _silence() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def run(seed: int, count: int) -> None:
    """Fuzz on the loop that the service uses, without a log."""
    _silence()
    try:
        import uvloop  # noqa: PLC0415 - where it is installed
    except ImportError:
        generated = asyncio.run(fuzz(seed, count))
    else:
        generated = uvloop.run(fuzz(seed, count))
    print(f"seed {seed}: {generated} requests, no fault")
