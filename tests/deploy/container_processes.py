"""Runs the commands of containers as processes of this host, with the paths and addresses of a test."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.programs.external_programs import SEARCH_PATH
from tests.programs.service_runner import PROJECT

CONTAINERFILE: Final = (PROJECT / "deploy" / "container" / "Containerfile").read_text("utf-8")
COMMAND_TIMEOUT_S: Final = 60.0
EXIT_TIMEOUT_S: Final = 20.0


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets, without PATH."""
    (text,) = re.findall(r"^ENV ((?:.*\\\n)*.*)", CONTAINERFILE, re.MULTILINE)
    pairs = dict(word.split("=", 1) for word in shlex.split(text.replace("\\\n", " ")))
    del pairs["PATH"]
    return pairs


def image_entrypoint() -> list[str]:
    """Return the program of the image, which comes before the command of a container."""
    (text,) = re.findall(r"^ENTRYPOINT (.*)", CONTAINERFILE, re.MULTILINE)
    words: list[str] = json.loads(text)
    return words


@dataclass(frozen=True, slots=True)
class ContainerProcess:
    """The command and the variables of a container, and what stands for its paths and addresses here."""

    command: Sequence[str]
    environment: Mapping[str, str]
    replaced: Mapping[str, object]
    """By the text in the container: the text on this host."""
    output: Path
    host_environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables, in which nothing is replaced."""

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the command during a block; then stop it as a container runtime does."""
        process = self._start()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(EXIT_TIMEOUT_S)
            finally:
                process.kill()

    def run(self, *words: str) -> tuple[int, str]:
        """Run another command in the container to its end; return the exit code and the output."""
        other = replace(self, command=words, output=self.output.with_suffix(".run"))
        return other._start().wait(COMMAND_TIMEOUT_S), other.output.read_text()

    def _start(self) -> subprocess.Popen[bytes]:
        words = [self._here(word) for word in self.command]
        if words[0] == "jobsvc":
            words[:1] = [sys.executable, "-m", "jobsvc"]
        variables = {name: self._here(value) for name, value in self.environment.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOBSVC_")}
        with self.output.open("wb") as stream:
            return subprocess.Popen(
                words,
                cwd=PROJECT,
                env={
                    **inherited,
                    "HOME": "/nonexistent",
                    "PATH": SEARCH_PATH,
                    **variables,
                    **self.host_environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def _here(self, text: str) -> str:
        """Replace paths and addresses at once, so that nothing is replaced twice."""
        pattern = "|".join(map(re.escape, sorted(self.replaced, key=len, reverse=True)))
        return re.sub(rf"(?:{pattern})(?!\w)", lambda match: str(self.replaced[match.group()]), text)
