"""Runs jobsvc with the system calls that deploy/systemd/jobsvc.service allows, by libseccomp.

This is what systemd sets up for SystemCallFilter=, MemoryDenyWriteExecute= and RestrictAddressFamilies=.
`python -m tests.deploy.unit_sandbox ARGUMENTS...` runs `jobsvc ARGUMENTS...`.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.programs.external_programs import SEARCH_PATH

UNIT: Final = Path(__file__).parents[2] / "deploy" / "systemd" / "jobsvc.service"

# seccomp.h
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_EQUAL: Final = 4
_MASKED_EQUAL: Final = 7


class _Condition(ctypes.Structure):
    """struct scmp_arg_cmp: `left` and `right` are value and nothing, or mask and value."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("left", ctypes.c_uint64),
        ("right", ctypes.c_uint64),
    )


class Filter:
    """A filter of system calls; filters that are loaded one after the other all apply."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(default))

    def add(self, name: str, action: int, *conditions: _Condition) -> None:
        """Set what happens to calls with these arguments; ignores names of other architectures."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        array = (_Condition * len(conditions))(*conditions)
        result = self._library.seccomp_rule_add_array(self._context, action, number, len(conditions), array)
        if number >= 0 and result:
            raise OSError(-result, f"{name}: {os.strerror(-result)}")

    def load(self) -> None:
        """Apply it to this process and its children."""
        if result := self._library.seccomp_load(self._context):
            raise OSError(-result, os.strerror(-result))


def settings(name: str) -> list[str]:
    """Return the values of a setting of the unit."""
    lines = UNIT.read_text("utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def allowed_calls() -> set[str]:
    """Return the system calls of SystemCallFilter=, which adds and removes sets in turn."""
    allowed = set(_members(["@default"]))
    for line in settings("SystemCallFilter"):
        if line.startswith("~"):
            allowed.difference_update(_members(line[1:].split()))
        else:
            allowed.update(_members(line.split()))
    return allowed


def _members(names: Sequence[str]) -> Iterator[str]:
    """Return the system calls of sets, which may contain other sets."""
    for name in names:
        if name.startswith("@"):
            yield from _members(_set(name))
        else:
            yield name


def _set(name: str) -> list[str]:
    command = ["systemd-analyze", "--no-pager", "syscall-filter", name]
    environment = {**os.environ, "PATH": SEARCH_PATH}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    words = [line.strip() for line in shown.splitlines() if line.startswith("    ")]
    return [word for word in words if not word.startswith("#")]


def apply() -> None:
    """Restrict this process as the unit does."""
    by_name = Filter(_REFUSE)
    for name in allowed_calls() - {"socket"}:
        by_name.add(name, _ALLOW)
    for family in settings("RestrictAddressFamilies")[0].split():
        by_name.add("socket", _ALLOW, _Condition(0, _EQUAL, getattr(socket, family), 0))
    by_argument = Filter(_ALLOW)
    if settings("MemoryDenyWriteExecute") == ["yes"]:
        both = mmap.PROT_WRITE | mmap.PROT_EXEC
        by_argument.add("mmap", _REFUSE, _Condition(2, _MASKED_EQUAL, both, both))
        for name in ("mprotect", "pkey_mprotect"):
            by_argument.add(name, _REFUSE, _Condition(2, _MASKED_EQUAL, mmap.PROT_EXEC, mmap.PROT_EXEC))
    by_argument.load()  # the other one refuses seccomp(2)
    by_name.load()


if __name__ == "__main__":
    apply()
    os.execv(sys.executable, [sys.executable, "-m", "jobsvc", *sys.argv[1:]])  # noqa: S606
