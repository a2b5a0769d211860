"""jobsvc secrets create: make the directory that several instances read."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from jobsvc.cli.secrets.places import find_places, place_options
from jobsvc.cli.secrets.state_file_errors import state_file_errors
from jobsvc.cli.settings_options import file_error
from jobsvc.storage.layout import LINK_KEY_FILE, TOKENS_FILE
from jobsvc.storage.state import link_key, token_file


@click.group
def secrets() -> None:
    """Create the directory of tokens and link key that several instances share.

    Each instance reads it as --secrets-dir, and never writes there.
    """


@secrets.command
@click.option("--group", metavar="NAME", help="Group that can read the directory, such as the service's.")
@place_options()
@click.pass_context
def create(ctx: click.Context, /, group: str | None, **_: object) -> None:
    """Create link.key and tokens.json in the directory --secrets-dir, and the directory.

    Files that exist are kept. `jobsvc token create --secrets-dir DIR` then adds tokens. Mount the directory
    read-only for each instance, or make a secret of the two files:

    \b
      kubectl create secret generic jobsvc --from-file=DIR/link.key --from-file=DIR/tokens.json

    In Kubernetes, mount the secret with defaultMode: 0440 and set fsGroup to the service's group.
    """  # noqa: D301 - \b is for click
    folder = find_places(ctx).secrets_dir
    if folder is None:
        raise click.UsageError("--secrets-dir is missing: the directory to create.")
    with state_file_errors(folder / LINK_KEY_FILE, shared=True):
        _create_folder(folder, group)
        created = {
            TOKENS_FILE: token_file.create_shared(folder / TOKENS_FILE),
            LINK_KEY_FILE: _create_key(folder / LINK_KEY_FILE),
        }
    for name, is_new in created.items():
        click.echo(f"{folder / name}: {'created' if is_new else 'exists, kept'}", err=True)


def _create_folder(folder: Path, group: str | None) -> None:
    """Create the directory; with a group, let the group read it. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if group is not None:
        try:
            shutil.chown(folder, group=int(group) if group.isdecimal() else group)
        except LookupError as exc:
            raise click.BadParameter(f"there is no group {group!r}.", param_hint="--group") from exc
        folder.chmod(0o750)


def _create_key(path: Path) -> bool:
    try:
        return link_key.create_shared(path)
    except link_key.BadLinkKey as exc:
        raise file_error(str(exc), exc.__cause__) from exc
