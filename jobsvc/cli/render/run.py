"""jobsvc run: run a renderer, and write its job."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click

from jobsvc.cli.client.parameters import examples
from jobsvc.cli.render.job_options import job_errors, job_options
from jobsvc.farm import Job
from jobsvc.runner.blender_arguments import frames_of_blender
from jobsvc.runner.event import Parse
from jobsvc.runner.formats.auto import AUTO, parser_for
from jobsvc.runner.formats.table import FORMATS, format_of_program
from jobsvc.runner.frame_range import FrameRange, parse_frame_range
from jobsvc.runner.regex_file import load_regex_file
from jobsvc.runner.render import OUTPUT_WORD, Plan, Render


class _Frames(click.ParamType[FrameRange]):
    name = "range"

    def convert(
        self, value: str | FrameRange, param: click.Parameter | None, ctx: click.Context | None
    ) -> FrameRange:
        """Return the frames."""
        try:
            return value if isinstance(value, FrameRange) else parse_frame_range(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "export JOBSVC_JOBS_ROOT=/srv/farm/jobs",
        "jobsvc run --owner acme --output title.mp4 -- ffmpeg -i frames/%04d.png {output}",
        "jobsvc run --owner acme --output beauty.####.png \\",
        "    -- blender -b title.blend -o {output} -s 1 -e 250 -a",
    ),
)
@job_options
@click.option(
    "--frames",
    type=_Frames(),
    help="Frames to render, such as 1-250 or 1,3,5-9. Not needed if Blender's own arguments name them.",
)
@click.option(
    "--format", "format_name", type=click.Choice([AUTO, *FORMATS]), default=AUTO, show_default=True,
    help="What the renderer prints.",
)  # fmt: skip
@click.option(
    "--regex", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.toml",
    help="Patterns for what a renderer prints that has no format here.",
)  # fmt: skip
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    *,
    frames: FrameRange | None,
    format_name: str,
    regex: Path | None,
    command: tuple[str, ...],
    **job_values: Any,  # noqa: ANN401 - those of Job.create
) -> None:
    """Run a renderer, and write its job.

    The job has its log, its progress, its outputs and the final state.
    In COMMAND, {output} is the path to write the main output to, and {job} the directory of the job. Both are
    in its environment, too: JOBSVC_OUTPUT and JOBSVC_JOB_DIR. What has been written to {output} is renamed to
    its place when the command has succeeded. Without --output, the files that the renderer reports become
    outputs.

    The exit code is that of the command, 1 if it succeeded without writing its output, and 128 + N after
    signal N.
    """
    output = job_values["output"]
    if output is None and any(OUTPUT_WORD in word for word in command):
        raise click.UsageError("The command uses {output}: name the path of the output by --output.")
    with job_errors():
        if frames is None and format_of_program(command[0]) == "blender":
            frames = frames_of_blender(command[1:])
        parse = _parser(format_name, regex, command[0])
        plan = Plan(command, parse, output, frames, job_values["keep_outputs"])
        job = Job.create(**job_values)
        click.echo(f"jobsvc: job {job.id}, attempt {job.attempt}", err=True)
        try:
            sys.exit(Render(job, plan).run())
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)


def _parser(format_name: str, regex: Path | None, program: str) -> Parse:
    if regex is not None:
        return load_regex_file(regex)
    if format_name == AUTO:
        format_name = format_of_program(program) or AUTO
    return parser_for(format_name)
