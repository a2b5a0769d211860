"""Construct the service (`components`, `app_factory`), start and stop it (`lifespan`, `run`).

Nothing is created at import and nothing is global: each object is passed what it needs.
"""

from __future__ import annotations

from jobsvc.service.app_factory import build_app
from jobsvc.service.run import StartupError, run, serve

__all__ = ["StartupError", "build_app", "run", "serve"]
