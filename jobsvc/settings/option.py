"""What an option is: its names in all sources, and how its value is parsed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobsvc.settings.parsers import switch


@dataclass(frozen=True, slots=True)
class Spec:
    """Properties of an option besides its name, type and default."""

    parse: Callable[[str], Any]
    metavar: str
    help: str
    argument: bool = False
    splits: str | None = None
    """For a repeatable option: the pattern that separates its values in the environment variable."""
    joined: Callable[[list[Any]], Any] = tuple
    """For a repeatable option: combines the values into the setting."""
    shown: str | None = None
    """The default in help texts, if it differs from the value's own text."""
    is_secret: bool = False
    """Whether a value can contain a password, which must not be in a message."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option and its names in all sources."""

    field: str
    """Attribute of Settings."""
    name: str
    """Key in the config file, and name in messages: max-age."""
    default: str
    """The default as text; empty if there is none."""
    spec: Spec

    @property
    def flag(self) -> str:
        """The name on the command line: --max-age, or JOBS_ROOT for an argument."""
        return self.spec.metavar if self.spec.argument else f"--{self.name}"

    @property
    def variable(self) -> str:
        """The name of the environment variable: JOBSVC_MAX_AGE."""
        return "JOBSVC_" + self.name.replace("-", "_").upper()

    @property
    def is_switch(self) -> bool:
        """Whether it has no value on the command line."""
        return self.spec.parse is switch

    @property
    def repeatable(self) -> bool:
        """Whether the option takes several values."""
        return self.spec.splits is not None

    def split(self, text: str) -> list[str]:
        """Split the environment variable of a repeatable option into its values."""
        return [part for part in re.split(self.spec.splits or r"\0", text) if part]
