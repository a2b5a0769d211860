from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def jobsvc(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command in a process of its own, with no settings but the given ones."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JOBSVC_", "XDG_"))}

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**clean, "HOME": str(tmp_path / "home"), **variables}
        return subprocess.run(
            [sys.executable, "-m", "jobsvc", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run
