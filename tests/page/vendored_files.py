"""The modules of the page that come from npm: what is changed in them, and how they are updated.

`python -m tests.page.vendored_files preact=11.3.0` replaces a package by another version, with its hashes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.programs.npm import package_files

FOLDER: Final = Path(__file__).parents[2] / "jobsvc/web/page/vendor"
SOURCES: Final = FOLDER / "sources.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file comes from; the names are those in sources.json."""

    file: str
    package: str
    version: str
    path: str
    publishedSha256: str  # noqa: N815 - as above
    sha256: str


def read_sources() -> list[Source]:
    return [Source(**each) for each in json.loads(SOURCES.read_bytes())]


def vendored(published: bytes) -> bytes:
    """Return a published module as the page needs it: without a build, browsers resolve no bare names."""
    lines = published.replace(b'from"preact"', b'from"./preact.mjs"').splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"//# sourceMappingURL="))


def hash_of(data: bytes) -> str:
    return sha256(data).hexdigest()


def update(versions: Mapping[str, str]) -> None:
    """Replace the files by those of these versions, by package."""
    sources = []
    for source in read_sources():
        version = versions.get(source.package, source.version)
        (published,) = package_files(source.package, version, source.path)
        (FOLDER / source.file).write_bytes(data := vendored(published))
        sources.append(
            replace(source, version=version, publishedSha256=hash_of(published), sha256=hash_of(data))
        )
    SOURCES.write_text(json.dumps(list(map(asdict, sources)), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    update(dict(word.split("=", 1) for word in sys.argv[1:]))
