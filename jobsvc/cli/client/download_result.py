"""Write downloaded files to standard output: their paths, or JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Final

from jobsvc.cli.client.terminal import printable
from jobsvc.client.models import Downloaded

TEXT: Final = "text"
JSON: Final = "json"
JSON_LINES: Final = "jsonl"


def result_line(file: Downloaded, form: str) -> bytes:
    """Return a file as a line: its path, or a JSON object."""
    if form != TEXT:
        return json.dumps(_document(file)).encode()
    if sys.stdout.isatty():
        return printable(str(file.path)).encode(errors="backslashreplace")
    return os.fsencode(file.path)  # the exact name, for the program that reads it


def result_document(files: list[Downloaded]) -> bytes:
    """Return all files as one JSON array."""
    return json.dumps([_document(file) for file in files], indent=2).encode()


def _document(file: Downloaded) -> dict[str, object]:
    return {
        "path": str(file.path),
        "jobId": file.job_id,
        "output": file.output,
        "size": file.size,
        "etag": file.etag,
        "sha256": file.sha256,
        "resumedFrom": file.resumed_from,
        "seconds": round(file.seconds, 3),
        "skipped": file.skipped,
    }
