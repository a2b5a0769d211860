"""jobsvc serve: load the settings from all sources and run the service until a signal stops it."""

from __future__ import annotations

import time
from functools import partial

import click

from jobsvc.cli.settings_options import (
    configured_values,
    file_error,
    setting_errors,
    settings_options,
    warn_of_unknown_variables,
)
from jobsvc.settings import OPTIONS, Settings, load, reload
from jobsvc.shared_state import reachability
from jobsvc.shared_state.redis_url import BadOptions, BadPasswordFile, complete_url, hide_password
from jobsvc.storage.layout import LINK_KEY_FILE, REVOKED_LINKS_FILE, TOKENS_FILE
from jobsvc.storage.state import link_key, token_file
from jobsvc.storage.state.revoked_links_file import BadRevokedLinks, load_revoked


@click.command
@settings_options()
@click.option("--check-config", is_flag=True, help="Check the configuration, change nothing, and exit.")
@click.pass_context
def serve(ctx: click.Context, /, *, check_config: bool, **_: object) -> None:
    """Serve jobs over HTTP until SIGTERM.

    JOBS_ROOT is the directory that contains the job directories.
    Each option is also an environment variable (--max-age is JOBSVC_MAX_AGE) and a key of the file that
    --config names (max-age = 1). The flag takes precedence, then the environment, then the file. Several
    values in a variable are separated by colons (JOBSVC_OUTPUT_ROOT) or by commas or spaces (others). An
    empty variable counts as not set.

    Exit codes: 0 after SIGTERM; 1 for a fault that a restart can fix, such as a port in use or a jobs root
    that is not mounted yet; 2 for wrong use or configuration.
    """
    given = configured_values(ctx)
    with setting_errors():
        settings = load(given, dry_run=check_config)
    if check_config:
        warn_of_unknown_variables()
        _report(settings)
        return
    from jobsvc.service import run  # noqa: PLC0415 - help and wrong settings need no web server

    ctx.exit(run(settings, reread=partial(reload, given)))


def _report(settings: Settings) -> None:
    """Check the files about tokens, links and Redis, and print a summary of the configuration."""
    folder, shared = settings.secrets_folder, settings.secrets_dir is not None
    try:
        tokens = token_file.load(folder / TOKENS_FILE, shared=shared)
        if shared:
            link_key.load_shared(folder / LINK_KEY_FILE)
        else:
            link_key.check(folder / LINK_KEY_FILE)
        load_revoked(folder / REVOKED_LINKS_FILE, shared=shared)
        url = settings.shared_state and complete_url(settings.shared_state, settings.secrets_dir)
        problem = reachability.problem(url) if url else None
    except (
        token_file.BadTokenFile,
        link_key.BadLinkKey,
        BadRevokedLinks,
        BadPasswordFile,
        BadOptions,
    ) as exc:
        raise file_error(str(exc), exc.__cause__) from exc
    now = time.time()
    click.echo("The configuration is valid.")
    click.echo(f"jobs root: {settings.jobs_root}")
    counted = f"{sum(each.alive(now) for each in tokens)} valid tokens"
    if shared:
        click.echo(f"state directory: {settings.state_dir}")
        click.echo(f"secrets directory: {folder}, {counted}")
    else:
        click.echo(f"state directory: {folder}, {counted}")
    click.echo(f"address: {settings.host}, port {settings.port}")
    _report_limits(settings)
    if url:
        click.echo(f"shared state: {hide_password(url)}, prefix {settings.shared_state_prefix}")
    if problem:
        click.echo(f"Warning: the shared state cannot be used now: {problem}", err=True)


def _report_limits(settings: Settings) -> None:
    rates = {
        option.name.removeprefix("limit-"): getattr(settings, option.field)
        for option in OPTIONS
        if option.name.startswith("limit-")
    }
    click.echo(f"budgets: {', '.join(f'{name} {rate}' for name, rate in rates.items())}")
    downloads = f"{settings.max_downloads_per_token} of {settings.max_downloads} downloads"
    streams = f"{settings.max_streams_per_token} of {settings.max_streams} streams"
    click.echo(f"at once, per token: {downloads}, {streams}")
