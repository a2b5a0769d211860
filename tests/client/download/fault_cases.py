"""Jobs with random outputs, to be downloaded through a proxy with faults."""

from __future__ import annotations

import asyncio
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.clients import proxy_faults
from tests.clients.faulty_proxy import Fault, FaultyProxy
from tests.conftest import MakeJob, put

BUDGET: Final = 16
"""Faults of one download, so that it can succeed at last."""
SIZES: Final = (0, 1, 999, 60_000, 700_000, 700_000, 3_000_000, 3_000_000)
KINDS: Final = ("file", "file", "file", "file", "sequence", "sequence", "tar", "zip")
UNSEEN: Final = {proxy_faults.flip_byte, proxy_faults.repeat_page_as_range}
"""Faults that only a digest reveals."""


@dataclass
class Case:
    """A job with a random output, and how it is downloaded."""

    seed: int
    kind: str
    """`file`, `sequence`, `tar` or `zip`."""
    folder: Path
    verify: bool
    streamed: bool
    """Whether it is written to a stream."""
    random: Random
    versions: dict[str, list[bytes]] = field(default_factory=dict)
    """All contents that each file ever had, by its name."""
    _replacing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def job_id(self) -> str:
        return self.folder.name

    @property
    def archive(self) -> str | None:
        return self.kind if self.kind in {"tar", "zip"} else None

    def target(self, folder: Path) -> Path:
        """Return the file or the directory to download to."""
        return folder / {"file": "film.mp4", "sequence": "frames"}.get(self.kind, f"film.{self.kind}")

    def proxy(self, port: int, *without: Fault) -> FaultyProxy:
        """Return a proxy whose faults the client can notice."""
        excluded = {*without, *(() if self.verify else UNSEEN)}
        faults = [fault for fault in proxy_faults.FAULTS if fault not in excluded]
        return FaultyProxy(
            port, seed=self.seed, faults=faults, budget=BUDGET, share=0.8, replace_output=self.replace
        )

    async def replace(self) -> None:
        """Replace one of the files, as a farm does."""
        async with self._replacing:
            await asyncio.to_thread(self.write, self.random.choice(list(self.versions)))

    def write(self, name: str, size: int | None = None) -> None:
        """Write a file with new contents, of the same size or another one."""
        sizes = [len(content) for content in self.versions.get(name, [])] + [self.random.choice(SIZES)]
        content = self.random.randbytes(self.random.choice(sizes) if size is None else size)
        self.versions.setdefault(name, []).append(content)
        put(self.folder / "output" / name, content)

    def check(self, folder: Path, *, complete: bool) -> None:
        """Fail if a file is not one of its versions; with `complete` also if one is missing."""
        found = dict(self._received(folder))
        for name, content in found.items():
            assert content in self.versions[name], f"seed {self.seed}: {name} is wrong"
        assert not complete or found.keys() == self.versions.keys()
        assert not complete or not list(folder.rglob("*.part*"))

    def _received(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each file that has its final name, or that is in an archive."""
        for path in folder.rglob("*"):
            if path.is_file() and ".part" not in path.name:
                yield from [(path.name, path.read_bytes())] if self.archive is None else _unpack(path).items()


def _unpack(path: Path) -> Mapping[str, bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            return {Path(name).name: packed.read(name) for name in packed.namelist()}
    contents: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            contents[Path(member.name).name] = file.read()
    return contents


def make_case(seed: int, make_job: MakeJob, *, kind: str = "") -> Case:
    """Write a job whose kind and files follow from the seed."""
    random = Random(seed)  # noqa: S311 - no secret
    kind = kind or random.choice(KINDS)
    verify, streamed = random.random() < 0.8, kind in {"file", "tar"} and random.random() < 0.25
    case = Case(seed, kind, make_job(f"job-{seed}"), verify, streamed, random)
    for name in ["film.mp4"] if kind == "file" else [f"beauty.{1001 + n}.exr" for n in range(4)]:
        case.write(name)
    path = "output/film.mp4" if kind == "file" else "output/beauty.####.exr"
    make_job(case.job_id, status="completed", outputPath=path)
    return case
