from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.observe.rotating_file import RotatingFile

ROOT = Path(__file__).parents[2]


def test_lines_are_appended_to_a_private_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = RotatingFile(tmp_path / "log", 100, 2)
        file.append(b"one")
        file.append("zwölf".encode())
        file.close()
    finally:
        os.umask(before)
    assert (tmp_path / "log").read_text("utf-8") == "one\nzwölf\n"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_oldest_lines_are_dropped_first_and_no_file_exceeds_its_limit(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", 10, 2)
    for number in range(10):
        file.append(b"%04d" % number)
    file.close()
    kept = [(tmp_path / name).read_bytes() for name in ("log.2", "log.1", "log")]
    assert kept == [b"0004\n0005\n", b"0006\n0007\n", b"0008\n0009\n"]
    assert len(list(tmp_path.iterdir())) == 3


def test_line_longer_than_the_limit_gets_its_own_file(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", 10, 2)
    for line in (b"x" * 20, b"y"):
        file.append(line)
    file.close()
    assert (tmp_path / "log.1").read_bytes() == b"x" * 20 + b"\n"
    assert (tmp_path / "log").read_bytes() == b"y\n"


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=30))
def test_kept_lines_are_the_last_written_ones(lines: list[bytes]) -> None:
    with TemporaryDirectory() as name:
        file = RotatingFile(Path(name) / "log", 64, 2)
        for line in lines:
            file.append(line)
        file.close()
        kept = b"".join(part.read_bytes() for part in sorted(Path(name).iterdir(), reverse=True))
    written = b"".join(line + b"\n" for line in lines)
    assert written.endswith(kept)
    assert len(kept) == len(written) or len(kept) > 64


def test_moved_file_is_created_again(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", 100, 2)
    file.append(b"one")
    (tmp_path / "log").rename(tmp_path / "moved")
    file.append(b"two")
    file.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert (tmp_path / "log").read_bytes() == b"two\n"


def test_partial_line_of_a_killed_process_is_terminated(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"whe')
    file = RotatingFile(tmp_path / "log", 100, 2)
    file.append(b"whole")
    file.close()
    assert (tmp_path / "log").read_bytes() == b'{"whe\nwhole\n'


def test_file_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "later" / "log", 100, 2)
    with pytest.raises(OSError, match="No such file"):
        file.append(b"lost")
    (tmp_path / "later").mkdir()
    file.append(b"kept")
    file.close()
    assert (tmp_path / "later" / "log").read_bytes() == b"kept\n"


def test_full_disk_is_reported(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    file = RotatingFile(tmp_path / "log", 100, 2)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device"):
            file.append(b"lost")


def test_full_disk_leaves_no_partial_line(tmp_path: Path) -> None:
    """The kernel's file size limit stands for a full disk: it cuts a write short too."""
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from jobsvc.observe.rotating_file import RotatingFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 1000))\n"
        f"file = RotatingFile(Path({str(tmp_path / 'log')!r}), 1000, 2)\n"
        "file.append(b'first')\n"
        "try: file.append(b'second')\n"
        "except OSError: pass\n"
        "else: sys.exit('no error')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "file.append(b'third')\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    assert (tmp_path / "log").read_bytes() == b"first\nthird\n"
