"""The JSON Schema (2020-12) of status.json, for editors and for writers in other languages."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import orjson

SCHEMA_TEXT: Final = (files("jobsvc.domain") / "status.schema.json").read_text("utf-8")
SCHEMA: Final[dict[str, Any]] = orjson.loads(SCHEMA_TEXT)
