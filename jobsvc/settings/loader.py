"""Build Settings from flags, environment and config file, or raise one error that names the wrong value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from jobsvc.settings import directories, parsers
from jobsvc.settings.option import Option
from jobsvc.settings.options import OPTIONS, Settings
from jobsvc.settings.tied_roots import check_tied_roots
from jobsvc.storage.files.os_errors import is_temporary
from jobsvc.storage.layout import OutputRoot

MAX_CONFIG_BYTES: Final = 1 << 20
"""Maximum size of a config file, in bytes; a larger file is certainly not one."""

NO_JOBS_ROOT: Final = (
    "jobs-root: missing; set the directory that contains the job directories"
    " as the argument JOBS_ROOT, as JOBSVC_JOBS_ROOT, or as jobs-root in the config file"
)

_DEFAULT: Final = "the default"
_NAME: Final = re.compile(r"[A-Za-z0-9.-]{1,253}", re.ASCII)


class SettingsError(ValueError):
    """A setting prevents the start; the message names the option, the value and its origin."""

    may_be_temporary = False
    """Whether a later start can succeed with the same settings, for example once a directory is mounted."""


def _error(option: str, value: object, exc: object, origin: str) -> SettingsError:
    shown = "" if value is None else f"{str(value)[:200]!r} "
    return SettingsError(f"{option}: {shown}{exc} (from {origin})")


@dataclass(frozen=True, slots=True)
class ConfiguredValue:
    """A value as text (several for a repeatable option), and a description of its origin."""

    value: str | tuple[str, ...]
    origin: str


def resolve(given: Mapping[str, ConfiguredValue], options: Iterable[Option] = OPTIONS) -> dict[str, Any]:
    """Parse the given values, by field, and those of the config file; return checked values by field.

    Fields without a value are left out. Raises SettingsError for the first invalid value, in the order of the
    options, or for an owner's output root whose files the records of other owners can name.
    """
    resolved = _resolve(given, options)
    if "output_roots" in resolved:
        _check_tied_roots(*resolved["output_roots"])
    return {field: value for field, (value, _) in resolved.items()}


def load(given: Mapping[str, ConfiguredValue], *, dry_run: bool = False) -> Settings:
    """Build Settings from the given values, by field, and check the directories. Raises SettingsError.

    The state directory is created after all other checks; with `dry_run` nothing is created or written.
    """
    settings, origins = _read(given)
    _check_places(settings, origins, directories.check_writable if dry_run else directories.make_writable)
    return settings


def describe(given: Mapping[str, ConfiguredValue]) -> Iterator[tuple[Option, Any, str]]:
    """Yield each option, its value (None if it has none) and where that comes from. Raises SettingsError."""
    resolved = _resolve(given, OPTIONS)
    defaults = {field.name: field for field in fields(Settings)}
    for option in OPTIONS:
        field = defaults[option.field]
        if option.field in resolved:
            yield option, *resolved[option.field]
        elif field.default_factory is MISSING:
            yield option, None if field.default is MISSING else field.default, _DEFAULT
        else:
            try:
                yield option, field.default_factory(), _DEFAULT
            except ValueError:  # no home directory is known
                yield option, None, _DEFAULT


def reload(given: Mapping[str, ConfiguredValue]) -> Settings:
    """Build Settings again, without a check of the directories. Raises SettingsError."""
    return _read(given)[0]


def _read(given: Mapping[str, ConfiguredValue]) -> tuple[Settings, dict[str, str]]:
    """Return the settings, and the origins of the values that are not defaults."""
    resolved = _resolve(given, OPTIONS)
    if "jobs_root" not in resolved:
        raise SettingsError(NO_JOBS_ROOT)
    try:
        settings = Settings(**{field: value for field, (value, _) in resolved.items()})
    except ValueError as exc:  # only the default state directory depends on the machine
        raise _error("state-dir", None, exc, _DEFAULT) from exc
    return settings, {field: origin for field, (_, origin) in resolved.items()}


def _check_places(settings: Settings, origins: Mapping[str, str], writable: Callable[[Path], None]) -> None:
    root, state, outputs = (
        settings.jobs_root,
        settings.state_dir,
        tuple(map(_folder_of, settings.output_roots)),
    )

    def check(name: str, field: str, value: Path, rule: Callable[..., None], *others: object) -> None:
        try:
            rule(value, *others)
        except ValueError as exc:
            error = _error(name, value, exc, origins.get(field, _DEFAULT))
            error.may_be_temporary = is_temporary(exc.__cause__)
            raise error from exc

    check("jobs-root", "jobs_root", root, directories.check_readable)
    if settings.secrets_dir is not None:
        check("secrets-dir", "secrets_dir", settings.secrets_dir, directories.check_readable)
    for folder in outputs:
        check("output-root", "output_roots", folder, directories.check_readable)
    _check_tied_roots(settings.output_roots, origins.get("output_roots", _DEFAULT))
    if settings.secrets_dir is not None:
        check("secrets-dir", "secrets_dir", settings.secrets_dir, directories.check_disjoint, root, outputs)
    check("state-dir", "state_dir", state, directories.check_disjoint, root, outputs)
    check("state-dir", "state_dir", state, writable)


def _check_tied_roots(roots: Sequence[Path | OutputRoot], origin: str) -> None:
    for root in roots:
        if isinstance(root, OutputRoot):
            try:
                check_tied_roots(root, roots)
            except ValueError as exc:
                raise _error("output-root", f"{root.owner}={root.path}", exc, origin) from exc


def _folder_of(root: Path | OutputRoot) -> Path:
    return root.path if isinstance(root, OutputRoot) else root


def _resolve(given: Mapping[str, ConfiguredValue], options: Iterable[Option]) -> dict[str, tuple[Any, str]]:
    """Return values and their origins by field; given values take precedence over the config file."""
    known = {**_config(given["config"]), **given} if "config" in given else given
    return {
        option.field: (_parse(option, known[option.field]), known[option.field].origin)
        for option in options
        if option.field in known
    }


def _parse(option: Option, given: ConfiguredValue) -> Any:  # noqa: ANN401 - the type is the option's own
    texts = (given.value,) if isinstance(given.value, str) else given.value
    parsed = []
    for text in texts:
        try:
            parsed.append(option.spec.parse(text))
        except ValueError as exc:
            raise _error(option.name, _shown(option, text), exc, given.origin) from exc
    return option.spec.joined(parsed) if option.repeatable else parsed[-1]


def _shown(option: Option, value: object) -> object:
    """Return the value to name in a message; None if it is more than a name, and can contain a password."""
    return None if option.spec.is_secret and not _NAME.fullmatch(str(value)) else value


def _config(given: ConfiguredValue) -> dict[str, ConfiguredValue]:
    """Read the config file and return its values by field. Raises SettingsError."""
    option = next(option for option in OPTIONS if option.field == "config")
    file: Path = _parse(option, given)
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_CONFIG_BYTES + 1)
    except OSError as exc:
        raise _error("config", file, f"cannot be read: {exc.strerror}", given.origin) from exc
    if len(text) > MAX_CONFIG_BYTES:
        raise _error("config", file, "is larger than 1 MiB", given.origin)
    try:
        content = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as exc:  # an integer of thousands of digits is a ValueError, too
        raise _error("config", file, f"is not valid TOML: {exc}", given.origin) from exc
    return _from_config(file, content)


def _from_config(file: Path, content: Mapping[str, Any]) -> dict[str, ConfiguredValue]:
    known = {option.name: option for option in OPTIONS if option.field != "config"}
    resolved: dict[str, ConfiguredValue] = {}
    for key, value in content.items():
        origin = f"{file}, key {key}"
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise _error(key, None, f"is not an option of jobsvc{_suggestion(key, known)}", origin)
        if option.field in resolved:
            raise _error(option.name, _shown(option, value), "is given twice", origin)
        resolved[option.field] = ConfiguredValue(_texts(option, value, file, origin), origin)
    return resolved


def _suggestion(key: str, known: Iterable[str]) -> str:
    close = get_close_matches(key.replace("_", "-").lower(), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _texts(option: Option, value: object, file: Path, origin: str) -> str | tuple[str, ...]:
    """Convert a TOML value to command-line text; relative paths are resolved against the file's directory."""
    if option.repeatable and isinstance(value, dict):
        value = [f"{word}={meaning}" for word, meaning in value.items()]
    if option.repeatable and isinstance(value, list):
        return tuple(_one(option, each, file, origin) for each in value)
    return _one(option, value, file, origin)


def _one(option: Option, value: object, file: Path, origin: str) -> str:
    if option.is_switch and isinstance(value, bool):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        kind = "a string, a number or a list" if option.repeatable else "a string or a number"
        raise _error(option.name, _shown(option, value), f"is not {kind}", origin)
    text = str(value)
    parse = option.spec.parse
    if parse is parsers.output_root and text and isinstance(parsers.output_root(text), OutputRoot):
        return text
    if parse in {parsers.path, parsers.output_root} and text and not text.startswith("~"):
        return str(file.parent / text)
    return text
