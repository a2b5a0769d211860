"""Parse the outputs in a record, and pack them for the many jobs that are kept in memory. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from jobsvc.domain.outputs import (
    MAIN,
    MAX_OUTPUTS,
    Frames,
    Output,
    Role,
    is_output_name,
    parse_frames,
)

MEMBERS: Final = ("name", "path", "role", "frames")
"""The known keys of an entry of `outputs`."""


def parse_outputs(value: object, output_path: str | None) -> tuple[Output, ...]:
    """Return the outputs that a record's `outputs` and `outputPath` name, in their order.

    At most one of them is the main output, with Role.MAIN. If outputPath is given, it is the output with that
    path; if there is none, an output MAIN is put before the others. Raises ValueError.
    """
    outputs = _listed(value)
    if sum(output.role is Role.MAIN for output in outputs) > 1:
        raise ValueError("two outputs have the role main")
    if output_path:
        outputs = _with_output_path(outputs, output_path)
    elif main_output(outputs) is None:
        outputs = [_as_main(output) if _is_unassigned(output) else output for output in outputs]
    _check(outputs)
    return tuple(outputs)


def main_output(outputs: Iterable[Output]) -> Output | None:
    """Return the main output; None if there is none."""
    return next((output for output in outputs if output.role is Role.MAIN), None)


def path_of_main(outputs: Iterable[Output] | None) -> str | None:
    """Return the path of the main output; None if there is none."""
    main = main_output(outputs or ())
    return None if main is None else main.path


def pack_outputs(outputs: Sequence[Output]) -> bytes | None:
    """Return the outputs as JSON without line feeds; None if outputPath alone names the same."""
    if not outputs or tuple(outputs) == plain_outputs(outputs[0].path):
        return None
    return orjson.dumps([(*output[:3], output.frames and list(output.frames)) for output in outputs])


def unpack_outputs(packed: bytes | memoryview) -> tuple[Output, ...]:
    """Return the outputs from the result of `pack_outputs`."""
    return tuple(
        Output(name, path, Role(role), None if frames is None else Frames(*frames))
        for name, path, role, frames in orjson.loads(packed)
    )


def plain_outputs(output_path: str | None) -> tuple[Output, ...]:
    """Return the outputs of a record that has no `outputs`."""
    return (Output(MAIN, output_path, Role.MAIN),) if output_path else ()


def _listed(value: object) -> list[Output]:
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004 - of a record
    if len(value) > MAX_OUTPUTS:
        raise _too_many()
    return [_parse_entry(entry, number) for number, entry in enumerate(value, 1)]


def _too_many() -> ValueError:
    return ValueError(f"more than {MAX_OUTPUTS} outputs")


def _parse_entry(entry: object, number: int) -> Output:
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} is not an object")  # noqa: TRY004 - of a record
    name = entry.get("name")
    if name is None:
        raise ValueError(f"entry {number} has no name")
    if not isinstance(name, str) or not is_output_name(name):
        raise ValueError(f"the name of entry {number} is not 1 to 64 of A-Z a-z 0-9 . _ -")
    try:
        return Output(name, _path(entry), _role(entry), _frames(entry))
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error


def _path(entry: Mapping[str, object]) -> str:
    path = entry.get("path")
    if path is None or path == "":
        raise ValueError("path is missing")
    if not isinstance(path, str):
        raise ValueError("path is not a string")  # noqa: TRY004 - of a record
    return path


def _role(entry: Mapping[str, object]) -> Role:
    role = entry.get("role")
    if role is None:
        return Role.DATA
    try:
        return Role(str(role))
    except ValueError:
        raise ValueError(f"role is not one of {', '.join(Role)}") from None


def _frames(entry: Mapping[str, object]) -> Frames | None:
    frames = entry.get("frames")
    if frames is None:
        return None
    if not isinstance(frames, str):
        raise ValueError("frames is not a string")  # noqa: TRY004 - of a record
    return parse_frames(frames)


def _with_output_path(outputs: list[Output], output_path: str) -> list[Output]:
    """Make the output at outputPath the main one; if several are there, prefer that role, then that name."""
    there = [output for output in outputs if _same_path(output.path, output_path)]
    main = max(there, key=lambda output: (output.role is Role.MAIN, output.name == MAIN), default=None)
    for output in outputs:
        if output is not main and output.role is Role.MAIN:
            raise ValueError(f"{output.name!r} has the role main, but is not at outputPath")
    if main is None:
        return [*plain_outputs(output_path), *outputs]
    return [_as_main(output) if output is main else output for output in outputs]


def _is_unassigned(output: Output) -> bool:
    return output.name == MAIN and output.role is Role.DATA


def _as_main(output: Output) -> Output:
    return output._replace(role=Role.MAIN)


def _same_path(one: str, other: str) -> bool:
    return one == other or _components(one) == _components(other)


def _components(path: str) -> list[str]:
    return [path[:1] if path[:1] == "/" else "", *(part for part in path.split("/") if part not in {"", "."})]


def _check(outputs: Sequence[Output]) -> None:
    """Check the outputs together; names that differ in case alone are one file on other systems."""
    if len(outputs) > MAX_OUTPUTS:
        raise _too_many()
    seen: set[str] = set()
    for output in outputs:
        if (folded := output.name.lower()) in seen:
            raise ValueError(f"the name {output.name!r} occurs twice")
        if output.name == MAIN and output.role is not Role.MAIN:
            raise ValueError(f"{MAIN!r} is not the main output")
        seen.add(folded)
