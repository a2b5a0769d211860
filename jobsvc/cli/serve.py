"""jobsvc serve: the settings from all their sources, then the service until it is told to stop."""

from __future__ import annotations

import click

from jobsvc.cli.options import given, settings_options, wrong_settings_told
from jobsvc.settings import load


@click.command
@settings_options()
@click.pass_context
def serve(ctx: click.Context, /, **_: object) -> None:
    """Serve the jobs beneath JOBS_ROOT over HTTP until SIGTERM.

    Each option can also be given as an environment variable (--max-age as JOBSVC_MAX_AGE) or in the config
    file (max-age = 1); the flag counts first, then the environment, then the file. Several values go into
    one variable: JOBSVC_OUTPUT_ROOT parted by colons, JOBSVC_STATUS_ALIAS and JOBSVC_TRUSTED_PROXY by
    commas or blanks. An empty variable counts as none. An option given in one place replaces the same
    option of a later place, it does not add to it.
    """
    with wrong_settings_told():
        settings = load(given(ctx))
    from jobsvc.service import run  # noqa: PLC0415 - help and wrong settings need no web server

    ctx.exit(run(settings))
