"""The examples of docs/farm.md in other languages are compiled, and write records that jobsvc reads."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Final

from jobsvc.domain.status_schema import SCHEMA_TEXT
from tests.programs import npm
from tests.programs.external_programs import needs

PAGE: Final = Path(__file__).parents[2] / "docs" / "farm.md"
RECORDS: Final = [
    {"status": "queued", "owner": "acme"},
    {"status": "rendering", "owner": "acme", "phase": "Café"},
]
TYPESCRIPT: Final = """
import { writeStatus } from "./example";
const [job, ...records] = process.argv.slice(2);
(async () => { for (const record of records) await writeStatus(job, JSON.parse(record)); })();
"""
CSHARP: Final = """
static class Program
{
    static void Main(string[] words)
    {
        for (var index = 1; index < words.Length; index++) JobRecord.Write(words[0], words[index]);
    }
}
"""


def example(language: str) -> str:
    """Return the only example in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return str(code)


def run(*words: object, folder: Path) -> None:
    result = subprocess.run(
        list(map(str, words)), cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def check(job: Path) -> None:
    """Check that the newest record is there, and nothing else."""
    (file,) = job.iterdir()
    record = json.loads(file.read_bytes())
    assert (file.name, record) == ("status.json", RECORDS[-1])
    assert record.keys() <= json.loads(SCHEMA_TEXT)["properties"].keys()


@needs("node", "npm")
def test_typescript(tmp_path: Path) -> None:
    modules = npm.install(tmp_path / "npm", "typescript@5.9.3", "@types/node@20.19.43")
    (tmp_path / "example.ts").write_text(example("ts"))
    (tmp_path / "main.ts").write_text(TYPESCRIPT)
    options = ("--strict", "--target", "es2022", "--module", "commonjs", "--types", "node")
    compiler = modules / "typescript" / "bin" / "tsc"
    run("node", compiler, *options, "--typeRoots", modules / "@types", "main.ts", folder=tmp_path)
    (tmp_path / "job").mkdir()
    run("node", "main.js", "job", *map(json.dumps, RECORDS), folder=tmp_path)
    check(tmp_path / "job")


@needs("mcs", "mono")
def test_csharp(tmp_path: Path) -> None:
    (tmp_path / "example.cs").write_text(example("csharp"))
    (tmp_path / "main.cs").write_text(CSHARP)
    run("mcs", "-warnaserror", "-out:main.exe", "example.cs", "main.cs", folder=tmp_path)
    (tmp_path / "job").mkdir()
    run("mono", "main.exe", "job", *map(json.dumps, RECORDS), folder=tmp_path)
    check(tmp_path / "job")
