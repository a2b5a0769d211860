"""Run a command: show its output as it comes, pass its lines on, and end its process group when canceled."""

from __future__ import annotations

import os
import pty
import selectors
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fcntl import ioctl
from types import FrameType
from typing import Final, NamedTuple

GRACE_S: Final = 10.0
"""Seconds that a canceled command has until it is killed."""
IDLE_S: Final = 0.5
"""Seconds between two calls of `on_idle` while the command prints nothing."""
MAX_READS_AFTER_EXIT: Final = 32
"""Reads after the command has exited, more than it can have left: another process may go on printing."""
MAX_LINE: Final = 64 * 1024
"""Bytes after which a line is passed on although it has not ended."""
CANCEL_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_CHUNK: Final = 64 * 1024


class Line(NamedTuple):
    """A line of output, without its end."""

    text: str
    is_replaced: bool
    """Whether it ended with a carriage return: the next line replaces it on a terminal."""


class LineSplitter:
    """Splits bytes into lines, which end with a line feed, a carriage return or both."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """Yield the lines that end in these bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._parts(line.removesuffix(b"\r"))
        # A carriage return at the end may belong to a line feed that follows.
        if (end := self._rest.rfind(b"\r", 0, -1)) >= 0:
            *parts, _ = self._rest[: end + 1].split(b"\r")
            yield from (_line(part, is_replaced=True) for part in parts if part)
            self._rest = self._rest[end + 1 :]
        if len(self._rest) > MAX_LINE:
            yield from self.end()

    def end(self) -> Iterator[Line]:
        """Yield the last line, if it is not complete."""
        rest, self._rest = self._rest, b""
        if rest:
            yield from self._parts(rest.removesuffix(b"\r"))

    @staticmethod
    def _parts(line: bytes) -> Iterator[Line]:
        *replaced, last = line.split(b"\r")
        yield from (_line(part, is_replaced=True) for part in replaced if part)
        yield _line(last, is_replaced=False)


def _line(data: bytes, *, is_replaced: bool) -> Line:
    return Line(data.decode("utf-8", "replace"), is_replaced)


class Command:
    """A command that runs once. Signals reach it through this process: main thread only."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """`environment` is added to that of this process."""
        self._arguments = arguments
        self._environment = environment
        self.canceled_by: int | None = None
        """The signal that canceled it."""
        self._kill_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, on_line: Callable[[Line], None], on_idle: Callable[[], None]) -> int:
        """Run until it exits. Returns its exit code, negative for a signal. Raises OSError if it can't start.

        `on_idle` is called now and then. If the standard output of this process is a terminal, so is that of
        the command. Its standard input is that of this process, unless that is a terminal.
        """
        with _output_streams() as (streams, child_files), self._handled_signals(streams):
            self._process = subprocess.Popen(  # noqa: S603 - what the user asked for
                self._arguments,
                stdin=subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None,
                stdout=child_files[0],
                stderr=child_files[1],
                env=os.environ | dict(self._environment),
                start_new_session=True,  # a process group that can be ended as a whole
            )
            for file in set(child_files):
                os.close(file)
            child_files.clear()
            self._forward(streams, on_line, on_idle)
            return self._process.wait()

    def cancel(self, number: int) -> None:
        """End the process group; kill it after GRACE_S, or at once the second time."""
        is_first = self.canceled_by is None
        self.canceled_by = self.canceled_by or number
        self._kill_at = time.monotonic() + (GRACE_S if is_first else 0)
        self._signal(signal.SIGTERM if is_first else signal.SIGKILL)
        self._signal(signal.SIGCONT)  # a stopped process takes a signal only when it goes on

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _forward(
        self, streams: dict[int, int], on_line: Callable[[Line], None], on_idle: Callable[[], None]
    ) -> None:
        """Copy output until the command has exited. `streams`: descriptors to read, and to write to."""
        splitters = {source: LineSplitter() for source in streams}
        process = self._process
        assert process is not None  # noqa: S101 - it has been started
        reads_after_exit = 0
        with selectors.DefaultSelector() as selector:
            for source in streams:
                selector.register(source, selectors.EVENT_READ)
            while selector.get_map() or process.poll() is None:
                if selector.get_map():
                    ready = selector.select(IDLE_S)
                else:
                    ready = []
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(IDLE_S)
                for key, _ in ready:
                    data = _read(key.fd)
                    _write(streams[key.fd], data)
                    for line in splitters[key.fd].feed(data) if data else splitters[key.fd].end():
                        on_line(line)
                    if not data:
                        selector.unregister(key.fd)
                if self._kill_at is not None and time.monotonic() > self._kill_at:
                    self._signal(signal.SIGKILL)
                if process.poll() is not None:
                    reads_after_exit += 1
                    if not ready or reads_after_exit > MAX_READS_AFTER_EXIT:
                        return  # a process in the background has the output still open
                on_idle()

    @contextmanager
    def _handled_signals(self, streams: Mapping[int, int]) -> Iterator[None]:
        def cancel(number: int, _frame: FrameType | None) -> None:
            self.cancel(number)

        def resize(_number: int, _frame: FrameType | None) -> None:
            for source in streams:
                _copy_window_size(source)

        # nohup ignores SIGHUP, and a shell ignores SIGINT for a command that it runs in the background.
        numbers = [number for number in CANCEL_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        handlers = dict.fromkeys(numbers, cancel) | {signal.SIGWINCH: resize}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _output_streams() -> Iterator[tuple[dict[int, int], list[int]]]:
    """Yield what is copied where, and the command's standard output and standard error, which it closes."""
    if os.isatty(1):
        source, child = pty.openpty()
        _copy_window_size(source)
        _leave_output_as_it_is(child)
        streams, child_files = {source: 1}, [child, child]
    else:
        (out, child_out), (err, child_err) = os.pipe(), os.pipe()
        streams, child_files = {out: 1, err: 2}, [child_out, child_err]
    try:
        yield streams, child_files
    finally:
        for file in {*streams, *child_files}:
            os.close(file)


def _copy_window_size(target: int) -> None:
    with suppress(OSError):
        ioctl(target, termios.TIOCSWINSZ, ioctl(1, termios.TIOCGWINSZ, bytes(8)))


def _leave_output_as_it_is(terminal: int) -> None:
    """Do not make a line feed two characters: the terminal of this process does that."""
    attributes = termios.tcgetattr(terminal)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


def _read(source: int) -> bytes:
    try:
        return os.read(source, _CHUNK)
    except OSError:
        return b""  # EIO: the other side of a terminal is closed


def _write(target: int, data: bytes) -> None:
    """Show output. If nobody reads it any more, the command goes on."""
    with suppress(OSError):
        while data:
            data = data[os.write(target, data) :]
