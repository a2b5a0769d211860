"""The service: constructed and joined (`parts`, `building`), begun and ended (`lifetimes`, `running`).

The one place for that. Nothing is made at import and nothing is global: what one needs, it is handed.
"""

from __future__ import annotations

from jobsvc.service.app_factory import build_app
from jobsvc.service.run import StartupError, run, serve

__all__ = ["StartupError", "build_app", "run", "serve"]
