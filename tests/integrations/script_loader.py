"""Loads the scripts of docs/integrations as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from jobsvc import farm


def load_script(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run a script as a module, whose writer needs outputs to be stable for a short time only."""
    monkeypatch.setattr(farm, "STABLE_S", 0.01)
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 15)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
