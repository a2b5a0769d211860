"""Find the directory of the tokens and the link key: the secrets directory, or else the state directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from jobsvc.cli.settings_options import (
    configured_values,
    setting_errors,
    settings_options,
    warn_of_unknown_variables,
)
from jobsvc.settings import OPTIONS, default_state_dir, resolve

Command = TypeVar("Command", bound=Callable[..., Any])

_NAMES: Final = ("state-dir", "secrets-dir", "shared-state", "shared-state-prefix", "config")


class Places(NamedTuple):
    """Where the service keeps what these commands read and change."""

    state_dir: Path
    secrets_dir: Path | None
    shared_state: str
    """URL of Redis; empty if there is none."""
    shared_state_prefix: str

    @property
    def secrets(self) -> Path:
        """The directory of tokens and link key."""
        return self.secrets_dir or self.state_dir

    @property
    def shared(self) -> bool:
        """Whether the directory is a secrets directory, with the rules of private_file.py."""
        return self.secrets_dir is not None


def place_options(*, shared_state: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of `jobsvc serve` that name the directories, and of Redis."""
    return settings_options(*(name for name in _NAMES if shared_state or not name.startswith("shared")))


def find_places(ctx: click.Context) -> Places:
    """Return the configured or default places."""
    warn_of_unknown_variables()
    with setting_errors():
        configured = resolve(configured_values(ctx), [each for each in OPTIONS if each.name in _NAMES])
    try:
        state_dir = configured.get("state_dir") or default_state_dir()
    except ValueError as exc:
        raise click.UsageError(f"--state-dir {exc}") from exc
    return Places(
        state_dir,
        configured.get("secrets_dir"),
        configured.get("shared_state", ""),
        configured.get("shared_state_prefix", "jobsvc"),
    )
