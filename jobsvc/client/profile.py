"""Find the URL and the token of the service: arguments, then the environment, then a saved profile.

Profiles are in `profiles.json` in the user's configuration directory:
`{"profiles": {NAME: {"url": ..., "token": ...}}}`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobsvc.client.connection_settings import ConnectionSettings, normalize_token, normalize_url
from jobsvc.client.errors import BadConfiguration
from jobsvc.domain.trace_context import trace_id_of

DEFAULT_NAME: Final = "default"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_TOKEN_FILE: Final = 64 << 10
_MAX_TIMEOUT_S: Final = 1e6
_OTHERS: Final = 0o077
"""Permissions of the group and of others."""


class Profile(NamedTuple):
    """The URL of a service and a token for it."""

    url: str
    token: str

    def __repr__(self) -> str:
        """Omit the token."""
        return f"Profile({self.url!r})"


def resolve(
    url: str | None = None,
    token: str | None = None,
    *,
    profile: str | None = None,
    timeout: float = 30.0,
    retries: int = 5,
    ca_file: str | None = None,
) -> ConnectionSettings:
    """Merge arguments, JOBSVC_URL, JOBSVC_TOKEN, JOBSVC_TOKEN_FILE, JOBSVC_PROFILE and the profile.

    With `profile`, the environment's URL and token are ignored. A token is not sent to a URL from elsewhere:
    that of a profile goes only to its URL, and that of the environment to JOBSVC_URL or to `url`.
    A valid TRACEPARENT (W3C Trace Context) is sent with each request. Raises BadConfiguration.
    """
    if not 0 < timeout <= _MAX_TIMEOUT_S or retries < 0:
        raise BadConfiguration("The timeout must be above 0 seconds, and the number of retries 0 or more.")
    base_url = normalize_url(url) if url else _environment_url(profile)
    if token:
        token, is_argument = normalize_token(token, "the argument"), True
    else:
        token, is_argument = _environment_token(profile), False
    if base_url is None or token is None:
        name = profile or os.environ.get("JOBSVC_PROFILE") or DEFAULT_NAME
        saved = _find(name, required=name != DEFAULT_NAME)
        if token is None:
            base_url, token = _with_saved_token(base_url, name, saved)
        else:
            base_url = _saved_url(name, saved, token_is_argument=is_argument)
    traceparent = os.environ.get("TRACEPARENT", "")
    if trace_id_of([traceparent]) is None:
        traceparent = ""
    return ConnectionSettings(base_url, token, timeout, retries, ca_file, traceparent or None)


def load_all() -> dict[str, Profile]:
    """Return all saved profiles by name; none if platformdirs is not installed. Raises BadConfiguration."""
    path = profiles_path()
    if path is None:
        return {}
    try:
        return {
            name: Profile(normalize_url(item["url"]), normalize_token(item["token"], f"the profile {name!r}"))
            for name, item in _read(path).items()
        }
    except (KeyError, TypeError, AttributeError):
        raise BadConfiguration(f"A profile in {path} has no URL or no token: log in again.") from None


def save(name: str, url: str, token: str) -> Path:
    """Add or replace a profile; return the file. Raises BadConfiguration."""
    if not _NAME.fullmatch(name):
        raise BadConfiguration(
            f"{name!r} is not a name for a profile: use letters, digits, '.', '_' and '-'."
        )
    path = profiles_path()
    if path is None:
        raise BadConfiguration(
            "Profiles need the package platformdirs: install it, or set JOBSVC_URL and JOBSVC_TOKEN."
        )
    item = {"url": normalize_url(url), "token": normalize_token(token, "the argument")}
    _write(path, {**_read(path), name: item})
    return path


def remove(name: str) -> bool:
    """Remove a profile; return whether it existed. Raises BadConfiguration."""
    path = profiles_path()
    if path is None:
        return False
    profiles = _read(path)
    if profiles.pop(name, None) is None:
        return False
    _write(path, profiles)
    return True


def profiles_path() -> Path | None:
    """Return the file of the profiles; None if platformdirs is not installed."""
    try:
        import platformdirs  # noqa: PLC0415 - not in the Python of other programs
    except ImportError:
        return None
    return platformdirs.user_config_path("jobsvc", appauthor=False) / "profiles.json"


def _environment_url(profile: str | None) -> str | None:
    url = os.environ.get("JOBSVC_URL")
    return normalize_url(url) if url and profile is None else None


def _environment_token(profile: str | None) -> str | None:
    if profile is not None:
        return None
    if token := os.environ.get("JOBSVC_TOKEN"):
        return normalize_token(token, "JOBSVC_TOKEN")
    if not (file := os.environ.get("JOBSVC_TOKEN_FILE")):
        return None
    try:
        with Path(file).open("rb") as opened:
            line = opened.readline(_MAX_TOKEN_FILE)
    except OSError as exc:
        raise BadConfiguration(f"JOBSVC_TOKEN_FILE: {file} cannot be read: {exc.strerror}.") from None
    return normalize_token(line.decode("utf-8-sig", "replace"), f"the first line of {file}")


def _find(name: str, *, required: bool) -> Profile | None:
    profiles = load_all()
    if name not in profiles and required:
        known = ", ".join(sorted(profiles)) or "none"
        raise BadConfiguration(f"There is no profile {name!r}; saved profiles: {known}.")
    return profiles.get(name)


def _with_saved_token(base_url: str | None, name: str, saved: Profile | None) -> tuple[str, str]:
    """Return the URL and the token of the profile, if it is for this URL."""
    if saved is None:
        if base_url is None:
            raise BadConfiguration("No service is configured: run `jobsvc login URL`, or set JOBSVC_URL.")
        raise BadConfiguration(
            f"There is no token for {base_url}: set JOBSVC_TOKEN, or run `jobsvc login {base_url}`."
        )
    if base_url not in {None, saved.url}:
        raise BadConfiguration(
            f"There is no token for {base_url}: the token of the profile {name!r} is for {saved.url} and not "
            f"sent elsewhere. Set JOBSVC_TOKEN, or run `jobsvc login {base_url}`."
        )
    return saved.url, saved.token


def _saved_url(name: str, saved: Profile | None, *, token_is_argument: bool) -> str:
    """Return the URL of the profile for another token, if that is an argument."""
    if saved is None:
        raise BadConfiguration("There is a token, but no URL: set JOBSVC_URL.")
    if not token_is_argument:
        raise BadConfiguration(
            f"The environment has a token without JOBSVC_URL. It is not sent to {saved.url} of the profile "
            f"{name!r}: set JOBSVC_URL, or unset JOBSVC_TOKEN and JOBSVC_TOKEN_FILE."
        )
    return saved.url


def _read(path: Path) -> dict[str, Any]:
    """Return the profiles of the file; none if it does not exist."""
    import json  # noqa: PLC0415 - only if the URL or the token is not given

    try:
        with path.open("rb") as file:
            if sys.platform != "win32" and os.fstat(file.fileno()).st_mode & _OTHERS:
                raise BadConfiguration(f"Other users can access {path}: run `chmod 600 '{path}'`.")
            profiles = json.load(file)["profiles"]
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise BadConfiguration(f"{path} cannot be read: {exc.strerror}.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        profiles = None
    if not isinstance(profiles, dict):
        raise BadConfiguration(f"{path} is not a file of profiles: delete it, and log in again.")
    return profiles


def _write(path: Path, profiles: dict[str, Any]) -> None:
    """Replace the file atomically; only the user can read it."""
    import json  # noqa: PLC0415 - only at login and logout
    from tempfile import NamedTemporaryFile  # noqa: PLC0415

    temporary = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            temporary = Path(file.name)  # its mode is 0600
            json.dump({"profiles": profiles}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        raise BadConfiguration(f"{path} cannot be written: {exc.strerror}.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
