"""The modules from npm are what npm publishes, and an installed package has every file of the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.page.vendored_files import FOLDER, SOURCES, hash_of, read_sources, vendored
from tests.programs.external_programs import without_coverage
from tests.programs.npm import package_files
from tests.programs.service_runner import PROJECT


def test_each_file_from_npm_has_its_hash_and_no_other_is_there() -> None:
    hashes = {path.name: hash_of(path.read_bytes()) for path in FOLDER.iterdir() if path != SOURCES}
    assert hashes == {source.file: source.sha256 for source in read_sources()}


def test_each_package_from_npm_has_its_licence() -> None:
    sources = read_sources()
    licensed = {source.package for source in sources if source.file == f"{source.package}.LICENSE"}
    assert licensed == {source.package for source in sources}


@pytest.mark.parametrize("package", sorted({source.package for source in read_sources()}))
def test_files_are_those_that_npm_publishes(package: str) -> None:
    sources = [source for source in read_sources() if source.package == package]
    published = package_files(package, sources[0].version, *(source.path for source in sources))
    assert list(map(hash_of, published)) == [source.publishedSha256 for source in sources]
    assert list(map(vendored, published)) == [(FOLDER / source.file).read_bytes() for source in sources]


def test_modules_from_npm_import_only_each_other() -> None:
    for module in FOLDER.glob("*.mjs"):
        for name in _imported(module.read_text("utf-8")):
            assert (FOLDER / name).is_file(), f"{module.name} imports {name}"


def _imported(text: str) -> list[str]:
    """Return what the minified text of a module imports."""
    return [part.partition('"')[0] for part in text.split('from"')[1:]]


def test_wheel_has_every_file_of_the_page(tmp_path: Path) -> None:
    words = ("--quiet", "--no-deps", "--wheel-dir", tmp_path, PROJECT)
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *map(str, words)],
        env=without_coverage(),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0 and "hatchling" in made.stderr:
        pytest.skip("pip cannot download hatchling, which builds the wheel")
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    page = PROJECT / "jobsvc/web/page"
    files = [path for path in page.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    with ZipFile(wheel) as archive:
        for path in files:
            assert archive.read(str(path.relative_to(PROJECT))) == path.read_bytes()
