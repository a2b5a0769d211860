"""Pack the kinds and versions of a job's outputs, for the many snapshots that are kept in memory. Pure.

The first byte is the kind of the main output; then follow the kind and the version of each output, in the
order of Job.outputs. OutputKind 0 is an output that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from jobsvc.domain.outputs import Output, OutputKind, Role
from jobsvc.storage.files.file_version import PACKED_SIZE, FileVersion

_KINDS: Final = (None, OutputKind.FILE, OutputKind.SEQUENCE, OutputKind.DIRECTORY)
_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}
_STRIDE: Final = 1 + PACKED_SIZE
_NO_VERSION: Final = bytes(PACKED_SIZE)


class OutputState(NamedTuple):
    """What an output is on disk."""

    kind: OutputKind
    version: FileVersion
    """Of the file or of the directory; of a sequence, of the directory that contains its frames."""


def pack_states(outputs: Iterable[Output], states: Iterable[OutputState | None]) -> bytes:
    """Pack the states of these outputs; None for an output that does not exist."""
    packed = bytearray(1)
    for output, state in zip(outputs, states, strict=True):
        kind, version = (None, _NO_VERSION) if state is None else state
        packed.append(_NUMBERS[kind])
        packed += version
        if output.role is Role.MAIN:
            packed[0] = _NUMBERS[kind]
    return bytes(packed)


def unpack_states(packed: bytes) -> list[OutputState | None]:
    """Return the states, in the order of the outputs."""
    return [_state_at(packed, start) for start in range(1, len(packed), _STRIDE)]


def main_kind(packed: bytes) -> OutputKind | None:
    """Return the kind of the main output; None if it does not exist."""
    return _KINDS[packed[0]]


def kinds(packed: bytes) -> bytes:
    """Return the kinds of all outputs: equal for equal kinds, 0 for an output that does not exist."""
    return packed[1::_STRIDE]


def _state_at(packed: bytes, start: int) -> OutputState | None:
    kind = _KINDS[packed[start]]
    if kind is None:
        return None
    return OutputState(kind, FileVersion.from_packed(packed[start + 1 : start + _STRIDE]))
