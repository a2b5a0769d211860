"""Jobs of a farm that attacks the page with every text that a record, a file name or a log can contain."""

from __future__ import annotations

from typing import Any, Final

from tests.conftest import MakeJob, put

MARKUP: Final = (
    '"><script>window.attacked = 1</script><img src=x onerror="window.attacked = 2">'
    "<svg/onload=window.attacked=3></textarea></title><iframe srcdoc='<b>'></iframe>"
    '<a href="javascript:window.attacked=4">open</a>${window.attacked=5}{{window.attacked=6}}'
)
"""Sets `window.attacked`, or creates elements, where it is more than text."""
OVERRIDE: Final = "\u202egpj.exe\u202d \u2066\u2067\u200f\u061c"
"""Bidirectional overrides and isolates without an end (CVE-2021-42574)."""
CONTROLS: Final = "\u0000\u0001\u0007\u001b[31m\u007f\u0085\u009b\u2028\ufeff\ufffe"
WORD: Final = "W" * 900_000
"""One word, almost as long as a record may be."""

MARKED_JOBS: Final = ("markup", "override", "controls", "word", "word-in-metadata", "constructor", "x" * 128)
"""Failed jobs; their errors start with MARK."""
MARK: Final = "Farm says:"
LOG_END: Final = "end of the log"
OUTPUTS_JOBS: Final = ("markup-outputs", "override-outputs")


def make_hostile_jobs(make_job: MakeJob) -> None:
    """Write MARKED_JOBS and OUTPUTS_JOBS."""
    for job_id, text in (("markup", MARKUP), ("override", OVERRIDE), ("controls", CONTROLS)):
        make_job(job_id, log=hostile_log(text), **_failed(text), **_details(text))
    make_job("word", log=f"{WORD}\n{LOG_END}\n".encode(), **_failed(WORD))
    make_job("word-in-metadata", **_failed(""), metadata={WORD: 1})
    make_job("constructor", **_failed(""), metadata={"__proto__": {"toString": None, "then": 1}})
    make_job("x" * 128, **_failed("a long id"))
    for job_id, text in zip(OUTPUTS_JOBS, (MARKUP, OVERRIDE), strict=True):
        _make_outputs(make_job, job_id, text.replace("/", "")[:120])


def hostile_log(text: str) -> bytes:
    """Return a log with a text in plain lines, ANSI sequences, a hyperlink (OSC 8) and a title (OSC 0)."""
    lines = (
        text,
        f"\x1b[1;31m{text}\x1b[38;5;999m{text}\x1b[48;2;1;2mm\x1b[",
        f"\x1b]8;;javascript:window.attacked=7\x07{text}\x1b]8;;\x07",
        f"\x1b]0;{text}\x07\x1bP{text}\x1b\\",
        f"{text}\r{text}\r",
        LOG_END,
    )
    return "\n".join(lines).encode() + b"\xff\xfe\xc0\xaf\xed\xa0\x80 not UTF-8\n"


def _failed(error: str) -> dict[str, Any]:
    return {"status": "failed", "error": f"{MARK} {error}"}


def _details(text: str) -> dict[str, Any]:
    return {
        "phase": text,
        "projectPath": f"projects/{text}",
        "metadata": {text: text, "list": [text, {text: [text]}], "url": "javascript:window.attacked=8"},
    }


def _make_outputs(make_job: MakeJob, job_id: str, text: str) -> None:
    """Write a completed job with files whose names contain the text, and whose content is a script."""
    paths = [f"output/{text}.{suffix}" for suffix in ("mp4", "html", "svg", "png")]
    roles = ("main", "data", "preview", "thumbnail")
    outputs = [
        {"name": f"output-{role}", "path": path, "role": role}
        for role, path in zip(roles, paths, strict=True)
    ]
    folder = make_job(job_id, status="completed", outputs=outputs, **_details(text))
    for path in paths:
        put(folder / path, b"<svg xmlns='http://www.w3.org/2000/svg'><script>top.attacked = 9</script></svg>")
