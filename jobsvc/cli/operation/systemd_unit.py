"""jobsvc systemd-unit: print a unit for systemd, with the paths of this installation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from jobsvc.cli.packaged_files import packaged_directory

_INSTALLED: Final = "/opt/jobsvc/bin/jobsvc"
"""Path of the command in the units as they are in the project."""
_HIDDEN: Final = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome= hides from the service."""


@click.command("systemd-unit")
@click.option("--socket", "kind", flag_value="jobsvc.socket", help="Print jobsvc.socket.")
@click.option("--template", "kind", flag_value="jobsvc@.service", help="Print jobsvc@.service.")
def systemd_unit(kind: str | None) -> None:
    """Print a unit for systemd.

    By default jobsvc.service, for one process; its socket holds the port while the service restarts.
    jobsvc@.service is for several processes. Adapt the directory of the jobs:

    \b
    jobsvc systemd-unit > /etc/systemd/system/jobsvc.service
    jobsvc systemd-unit --socket > /etc/systemd/system/jobsvc.socket
    """  # noqa: D301 - \b is for click
    command = Path(sys.prefix) / "bin" / "jobsvc"
    unit = (packaged_directory("deploy") / "systemd" / (kind or "jobsvc.service")).read_text("utf-8")
    click.echo(unit.replace(_INSTALLED, _quoted(command)), nl=False)
    if any(command.is_relative_to(folder) for folder in _HIDDEN):
        click.echo(f"Warning: ProtectHome=yes hides {command}; install jobsvc elsewhere", err=True)


def _quoted(path: Path) -> str:
    """Escape a path for ExecStart= (systemd.service(5), "Command lines")."""
    text = str(path).replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace(" ", "\\x20")
    return text.replace('"', '\\"')
