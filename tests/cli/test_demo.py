from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import orjson
import pytest

from jobsvc.cli import packaged_files
from jobsvc.cli.demo import Display, _free_port, copy_samples, samples
from jobsvc.cli.demo_render import find_ffmpeg
from jobsvc.domain.job import Status

ROOT = Path(__file__).parents[2]


def _until(stream: IO[str], wanted: str) -> str:
    """Read lines until one matches; the end of the demo ends them, pytest's timeout is the deadline."""
    lines = []
    for line in stream:
        lines.append(line)
        if re.search(wanted, line):
            break
    return "".join(lines)


@contextmanager
def _demo(scratch: Path, *words: str, path: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run the demo as a person would, with its scratch directory below `scratch`."""
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    if path is not None:
        environment["PATH"] = path
    command = [sys.executable, "-m", "jobsvc", "demo", "--port", "0", *words]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _link_of(text: str) -> str:
    """Return the only link that the demo prints by itself on a line."""
    (link,) = re.findall(r"^ +(http://\S+)$", text, re.MULTILINE)
    return str(link)


def _token_of(text: str) -> str:
    """Return the token for the terminal."""
    (token,) = re.findall(r"JOBSVC_TOKEN=(\S+)", text)
    return str(token)


def _get(text: str, path: str) -> tuple[int, bytes]:
    """Request a URL as the commands that the demo prints do."""
    fields = {"Authorization": f"Bearer {_token_of(text)}"}
    url = urllib.parse.urljoin(_link_of(text), f"api/jobs/{path}")
    request = urllib.request.Request(url, headers=fields)  # noqa: S310 - http
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def _pasted(text: str, folder: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run each command that the demo printed in a shell, as pasted; commands of many lines are joined."""
    commands = re.findall(r"^    (?!http:)(\S(?:.*\\\n)?.*)$", text, re.MULTILINE)
    first = [command for command in commands if command.startswith(("export ", "api="))]
    results: dict[str, subprocess.CompletedProcess[str]] = {}
    for command in commands:
        if command in first:
            continue
        if command.startswith(("links=", "link=")):
            first.append(command)
        if command.endswith("$api/events"):  # this one lasts
            command = command.replace("curl ", "curl --max-time 5 ")  # noqa: PLW2901 - reported in the results
        script = "\n".join([*first, command])
        results[command] = subprocess.run(
            ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=150, check=False
        )
    return results


def printed_by(results: dict[str, subprocess.CompletedProcess[str]], part: str) -> str:
    """Return the output of the command that contains `part`."""
    return next(result.stdout for command, result in results.items() if part in command)


@pytest.mark.skipif(find_ffmpeg() is None or shutil.which("curl") is None, reason="no ffmpeg or no curl")
@pytest.mark.timeout(300)  # a film of 16 seconds is rendered, on a machine that may be busy
def test_every_printed_command_works_when_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "pasted"
    folder.mkdir()
    (tmp_path / "scratch").mkdir()
    with _demo(tmp_path / "scratch") as process:
        assert process.stdout is not None
        results = _pasted(_until(process.stdout, "Ctrl-C stops the demo"), folder)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert len(results) == 11
    for command, result in results.items():
        lasts = "--max-time" in command
        assert result.returncode == (28 if lasts else 0), (command, result.stderr)
        shows_progress = " -C " in command or command.startswith("jobsvc ")
        assert lasts or not result.stderr or shows_progress, (command, result.stderr)
    outputs = {command: result.stdout for command, result in results.items()}
    film = (samples() / "opening-title-0042/output/opening-title.mp4").read_bytes()
    for name in ("title.mp4", "opening-title.mp4"):
        assert (folder / name).read_bytes() == film, name
    assert len(re.findall(r"star/star\.10\d\d\.png$", printed_by(results, "| tar"), re.MULTILINE)) == 12
    assert (folder / "live-render-0001.mp4").read_bytes()[4:8] == b"ftyp"
    assert "farm: frame 400 of 400" in printed_by(results, "live-render-0001 -f")
    assert "job failed" in printed_by(results, "logs turntable-0013")
    assert "live-render-0001" in printed_by(results, "jobsvc jobs")
    assert printed_by(results, "jobsvc link").startswith("http://127.0.0.1:")
    assert "event: present" in next(text for command, text in outputs.items() if "--max-time" in command)


def _small_ffmpeg(folder: Path) -> str:
    """Write an ffmpeg that renders a hundredth of the pixels; return a PATH on which it is the first."""
    program = folder / "programs" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'for word; do shift; set -- "$@" "$(printf %s "$word" | sed s/=640x360:/=64x36:/)"; done\n'
        f'exec {find_ffmpeg()} "$@"\n'
    )
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.skipif(find_ffmpeg() is None, reason="no ffmpeg")
def test_demo_renders_a_film_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with _demo(scratch, path=_small_ffmpeg(tmp_path)) as process:
        assert process.stdout is not None
        text = _until(process.stdout, "Ctrl-C stops the demo and removes both")
        assert _link_of(text).endswith("/#token=" + _token_of(text))
        assert orjson.loads(_get(text, "live-render-0001")[1])["status"] in {"queued", "rendering"}
        assert _get(text, "live-render-0001/download")[0] == 409
        assert _get(text, "bumper-0001")[0] == 404
        assert "job failed" in orjson.loads(_get(text, "turntable-0013")[1])["logs"]
        _until(process.stdout, "completed  100 %")
        status, film = _get(text, "live-render-0001/download")
        assert (status, film[4:8]) == (200, b"ftyp")
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode == 0
    assert list(scratch.iterdir()) == []


def test_samples_are_served_without_ffmpeg_and_the_text_says_what_is_missing(tmp_path: Path) -> None:
    hide = tmp_path / "hide"
    (hide / "imageio_ffmpeg").mkdir(parents=True)
    (hide / "imageio_ffmpeg/__init__.py").write_text("raise ImportError")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hide))
        with _demo(scratch, "--keep", path=str(tmp_path)) as process:
            assert process.stdout is not None
            text = _until(process.stdout, "Ctrl-C stops the demo")
            assert "ffmpeg is not on the PATH" in text
            assert orjson.loads(_get(text, "poster-frame-0007")[1])["status"] == "completed"
            process.send_signal(signal.SIGTERM)
            assert "The demo's directory is kept: " in process.stdout.read()
    assert [entry.name for entry in scratch.glob("*/jobs/poster-frame-0007")] == ["poster-frame-0007"]


def test_every_sample_is_copied_and_nothing_else(tmp_path: Path) -> None:
    count = copy_samples(tmp_path / "jobs")
    names = {entry.name for entry in (tmp_path / "jobs").iterdir()}
    assert count == len(names) == 10
    assert "broken" not in names
    assert "opening-title-0042" in names


def test_samples_of_an_installed_package_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "site-packages/jobsvc"
    shutil.copytree(samples() / "poster-frame-0007", installed / "sample_jobs/poster-frame-0007")
    monkeypatch.setattr(packaged_files, "files", lambda _: installed)
    assert samples() == installed / "sample_jobs"


def test_missing_samples_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged_files, "files", lambda _: tmp_path / "jobsvc")
    with pytest.raises(click.ClickException, match="are neither in"):
        samples()


def test_port_in_use_is_replaced_with_a_notice(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert _free_port("127.0.0.1", port) == 0
    assert f"Port {port} is not available" in capsys.readouterr().out
    assert _free_port("127.0.0.1", port) == port


def test_foreign_address_is_a_clear_error() -> None:
    with pytest.raises(click.ClickException, match=r"Cannot listen on 192\.0\.2\.1"):
        _free_port("192.0.2.1", 8080)


def test_progress_is_one_line_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    display = Display()
    for done in range(4):
        display.show(Status.RENDERING, done, 4)
    display.show(Status.COMPLETED, 4, 4)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.count("\r") == 5
    assert "[###############---------------]" in printed


def test_progress_without_a_terminal_is_a_line_per_state_and_ten_percent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = Display()
    display.show(Status.QUEUED, 0, 400)
    for done in range(401):
        display.show(Status.RENDERING, done, 400)
    display.show(Status.COMPLETED, 400, 400)
    assert len(capsys.readouterr().out.splitlines()) == 13
