"""jobsvc demo: run the service with sample jobs in a temporary directory, which is removed afterwards.

It serves the sample jobs, creates a token, prints a link to the page and commands to paste, and renders one
more job.
"""

from __future__ import annotations

import errno
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from threading import Thread
from typing import Final

import click

from jobsvc.cli.demo_render import FPS, DemoFarm, find_ffmpeg
from jobsvc.cli.packaged_files import packaged_directory
from jobsvc.domain.job import Status
from jobsvc.settings import Settings
from jobsvc.storage.layout import STATUS_FILE, TOKENS_FILE
from jobsvc.storage.state import token_file

OWNER: Final = "demo"
LIVE_JOB: Final = "live-render-0001"
LIVE_FRAMES: Final = 16 * FPS
"""Sixteen seconds of film, rendered in real time."""
PORT: Final = 8080

_BAR: Final = 30
_STEP: Final = 10
"""Percent between two progress lines if standard output is not a terminal."""

_TEXT: Final = """\
{title}

  Open this link: it shows the jobs in a browser, signed in

    {url}/#token={secret}

  Or paste commands into another terminal, these first

    export JOBSVC_URL={url} JOBSVC_TOKEN={secret}{path}
    api={url}/api auth="Authorization: Bearer $JOBSVC_TOKEN"

  {live}

  All jobs, why one of them failed, and the file of another, which is verified
    jobsvc jobs
    jobsvc logs turntable-0013 -n 5
    jobsvc download opening-title-0042

  A link to that file for a colleague, who needs no token; the frames of a sequence as an archive
    jobsvc link opening-title-0042 --expires 10m
    jobsvc download star-turn-0420 --archive tar -o - | tar -tv

  With curl: a job, a download that is interrupted and resumed, all changes until Ctrl-C
    curl -fsS -H "$auth" $api/jobs/opening-title-0042 | python3 -m json.tool
    curl -fs -H "$auth" $api/jobs/opening-title-0042/download | head -c 70000 > title.mp4
    curl -f -H "$auth" -C - -o title.mp4 $api/jobs/opening-title-0042/download
    curl -fsSN -H "$auth" $api/events

  Description of the API: {url}/api/openapi.json
  Jobs: {jobs}, service log: {log}
  Ctrl-C stops the demo{end}.
"""
_LIVE: Final = """\
A job is being rendered for 16 seconds: follow its log, then fetch its film
    jobsvc logs {job} -f
    jobsvc download {job} --wait"""
_NO_FFMPEG: Final = """\
ffmpeg is not on the PATH, so the demo serves the sample jobs without a live render.
  For a live render, install ffmpeg with: pip install 'jobsvc[demo]'"""


@click.command
@click.option("--host", default="127.0.0.1", show_default=True, help="Host name or address to listen on.")
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; if it is in use, a free port is used.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary directory and print its path.")
@click.pass_context
def demo(ctx: click.Context, /, host: str, port: int, *, keep: bool) -> None:
    """Try the service with sample jobs and a live render.

    Prints a link that opens the web page, and commands to paste. Runs in a temporary directory, which is
    removed at the end.
    """
    with _temporary_directory(keep=keep) as directory:
        jobs, state = directory / "jobs", directory / "state"
        count = copy_samples(jobs)
        secret, _ = token_file.create(state / TOKENS_FILE, OWNER)
        settings = Settings(
            jobs_root=jobs, state_dir=state, host=host, port=_free_port(host, port), shutdown_grace=2.0
        )
        code = _serve(settings, secret, count, keep=keep)
    ctx.exit(code)


def samples() -> Path:
    """Return the directory of the sample jobs."""
    return packaged_directory("sample_jobs")


def copy_samples(jobs: Path) -> int:
    """Copy the valid sample jobs into a new directory `jobs`; return their number."""
    valid = [folder for folder in samples().iterdir() if (folder / STATUS_FILE).is_file()]
    for folder in valid:
        shutil.copytree(folder, jobs / folder.name)
    return len(valid)


def _serve(settings: Settings, secret: str, count: int, *, keep: bool) -> int:
    """Run the service and the demo farm until Ctrl-C or SIGTERM; return the service's exit code."""
    from jobsvc.service import run  # noqa: PLC0415 - help needs no web server

    ffmpeg = find_ffmpeg()
    # The service's log goes to a file: on the terminal it would break up the progress line.
    with (
        settings.jobs_root.with_name("service.log").open("w", encoding="utf-8") as log,
        redirect_stderr(log),
        ExitStack() as exit_stack,
    ):

        def ready(url: str) -> None:
            text = _TEXT.format(
                title=f"jobsvc demo: {count} sample jobs at {url}",
                secret=secret,
                path=_path_assignment(),
                url=url,
                live=_NO_FFMPEG if ffmpeg is None else _LIVE.format(job=LIVE_JOB),
                jobs=settings.jobs_root,
                log=log.name,
                end="" if keep else " and removes both",
            )
            click.echo(f"\n{text}")
            if ffmpeg is not None:
                exit_stack.enter_context(_live_render(settings.jobs_root, ffmpeg))

        return run(settings, ready)


def _path_assignment() -> str:
    """Return ` PATH=...` if other terminals would not find this jobsvc."""
    folder = Path(sys.executable).parent
    program = shutil.which("jobsvc")
    if not (folder / "jobsvc").exists() or (program and Path(program).parent == folder):
        return ""
    return f" PATH={shlex.quote(str(folder))}:$PATH"


@contextmanager
def _live_render(jobs: Path, ffmpeg: str) -> Iterator[None]:
    """Render one job in a thread during the block; at its end, cancel an unfinished render."""
    farm = DemoFarm(jobs / LIVE_JOB, ffmpeg, owner=OWNER, frames=LIVE_FRAMES, on_state=Display().show)
    farm.queue()
    worker = Thread(target=farm.run, name="farm")
    worker.start()
    try:
        yield
    finally:
        farm.stop()
        worker.join()


class Display:
    """Show the progress of the live render: one updated line on a terminal, otherwise a line per _STEP."""

    def __init__(self) -> None:
        """Determine whether standard output is a terminal."""
        self._terminal = sys.stdout.isatty()
        self._shown: tuple[Status, int] | None = None

    def show(self, status: Status, done: int, total: int) -> None:
        """Show the status and the number of finished frames."""
        percent = 100 * done // total
        line = f"  {LIVE_JOB}  {status:<9}  {percent:3d} %  frame {done:>{len(str(total))}} of {total}"
        if self._terminal:
            filled = "#" * (_BAR * done // total)
            click.echo(f"\r\x1b[2K{line}  [{filled:-<{_BAR}}]", nl=status.final)
            return
        now = (status, percent // _STEP)
        if now != self._shown:
            self._shown = now
            click.echo(line)


@contextmanager
def _temporary_directory(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="jobsvc-demo-"))
    try:
        yield folder
    finally:
        if keep:
            click.echo(f"The demo's directory is kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _free_port(host: str, port: int) -> int:
    """Return the port, or 0 (the system chooses one) with a message if the port is not available."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            if exc.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise click.ClickException(f"Cannot listen on {host}: {exc.strerror}") from exc
            click.echo(f"Port {port} is not available; the demo uses a free port instead.")
            return 0
    return port
