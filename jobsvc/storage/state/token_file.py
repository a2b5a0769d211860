"""Read and change the token file, tokens.json in the state directory. Blocking.

Labels are in token-labels.json in the same directory, because earlier versions reject unknown members.

A file is rejected if it is malformed, or for the reasons in private_file.py; `shared` is as there. Changes
are made under a lock, so that concurrent ones are not lost. Readers need no lock: they see the file before or
after a change.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ, Token
from jobsvc.storage.files.descriptor_reserve import DescriptorReserve
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.layout import TOKEN_LABELS_FILE
from jobsvc.storage.state import private_file
from jobsvc.storage.state.token_format import (
    check_name,
    parse_labels,
    parse_tokens,
    render_labels,
    render_tokens,
)

SECRET_PREFIX: Final = "jsvc_"  # noqa: S105 - a prefix, not a secret
"""Prefix of every token, so that people and secret scanners recognize it."""

DEFAULT_SCOPES: Final = (JOBS_READ, OUTPUTS_READ)
MAX_FILE_BYTES: Final = 16 << 20
"""Maximum size of the token file, in bytes: about 50,000 tokens."""


class BadTokenFile(Exception):
    """The token file cannot be used; the message names the file and the problem, and quotes no content."""


class UnknownToken(LookupError):
    """No token has this id."""


class EndedToken(Exception):
    """The token is expired or revoked; the message is a predicate."""


class TokenFileState(NamedTuple):
    """The tokens, and the file version they were read from."""

    version: FileVersion | None
    """The file version; None if there was no file."""
    tokens: tuple[Token, ...]
    label_fault: BadTokenFile | None = None
    """Why the labels cannot be used; if set, the tokens have no labels."""


def digest_of(secret: str) -> bytes:
    """Return the SHA-256 of an ASCII secret: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def load(path: Path, *, shared: bool = False) -> tuple[Token, ...]:
    """Return all tokens, including expired and revoked ones; none if there is no file.

    Raises BadTokenFile, never OSError. Unlike `load_if_changed`, this also raises it if the labels cannot be
    used, so that no change loses them.
    """
    known = load_if_changed(path, shared=shared)
    if known.label_fault is not None:
        raise known.label_fault
    return known.tokens


def load_if_changed(
    path: Path,
    known: TokenFileState | None = None,
    reserve: DescriptorReserve | None = None,
    *,
    shared: bool = False,
) -> TokenFileState:
    """Read the file; return `known` instead if its version is the same and cannot hide a later change.

    A missing file gives a state without tokens. With a `reserve` the file can be read even if the process has
    used up its descriptors. Raises BadTokenFile, never OSError. Unusable labels do not raise, because no
    decision depends on them; they are read again at each call until they are usable.
    """
    open_file = os.open if reserve is None else reserve.open
    with private_file.errors_as(BadTokenFile, path):
        state = _load_tokens(path, known, open_file, shared=shared)
    if state is known or state.version is None:
        return state
    try:
        labels = _labels(path.with_name(TOKEN_LABELS_FILE), open_file, shared=shared)
    except BadTokenFile as fault:
        return state._replace(label_fault=fault.with_traceback(None))
    tokens = state.tokens
    return state._replace(tokens=tuple(replace(each, label=labels.get(each.id)) for each in tokens))


def _load_tokens(
    path: Path, known: TokenFileState | None, open_file: private_file.OpenFile, *, shared: bool
) -> TokenFileState:
    """Return the tokens without labels, or `known`. Raises OSError, and ValueError if they are rejected."""
    # After a fault of the labels, both are read again.
    version = None if known is None or known.label_fault else known.version
    try:
        read = private_file.read_if_changed(path, version, MAX_FILE_BYTES, open_file, shared=shared)
    except FileNotFoundError:
        return TokenFileState(None, ())
    if read is None:
        assert known is not None  # noqa: S101 - it has the version
        return known
    return TokenFileState(read.version, parse_tokens(read.data))


def create(
    path: Path,
    owner: str,
    scopes: Iterable[str] = DEFAULT_SCOPES,
    expires: float | None = None,
    label: str | None = None,
    *,
    shared: bool = False,
) -> tuple[str, Token]:
    """Add a token; return its secret, which is not stored, and the token.

    `expires` is in seconds since the epoch. A missing directory is created with mode 0700. Raises
    BadTokenFile, OSError, and ValueError if the owner, a scope or the label is invalid.
    """
    secret, token = _new_token(owner, scopes, expires, label)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with private_file.lock_file(path, shared=shared):
        _save(path, (*load(path, shared=shared), token), shared=shared)
    return secret, token


def _new_token(
    owner: str, scopes: Iterable[str], expires: float | None, label: str | None
) -> tuple[str, Token]:
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    return secret, Token(
        id=secrets.token_hex(6),
        owner=check_name(owner),
        scopes=frozenset(scopes),
        digest=digest_of(secret),
        created=round(time.time(), 3),
        expires=None if expires is None else round(expires, 3),
        label=None if label is None else check_name(label),
    )


def rotate(
    path: Path, name: str, lifetime: float | None, overlap: float, *, shared: bool = False
) -> tuple[str, Token, Token]:
    """Replace a live token, given by its id or its secret, by a new one with its owner, scopes and label.

    `lifetime` is that of the new token; None is that of the old one, and infinity is forever. The old token
    expires after the `overlap`, if it does not expire before, or is revoked at once if that is 0. All are in
    seconds. Returns the new secret, the new and the old token. Raises UnknownToken, EndedToken,
    BadTokenFile, OSError.
    """
    if not path.parent.is_dir():
        raise UnknownToken
    with private_file.lock_file(path, shared=shared):
        tokens, now = {token.id: token for token in load(path, shared=shared)}, round(time.time(), 3)
        old = _named(tokens, name)
        if not old.alive(now):
            raise EndedToken(f"is {old.state(now)}")
        secret, new = _new_token(old.owner, old.scopes, _end(old, now, lifetime), old.label)
        until = now + overlap if old.expires is None else min(now + overlap, old.expires)
        ended = replace(old, expires=until) if overlap else replace(old, revoked=now)
        _save(path, (tokens | {old.id: ended, new.id: new}).values(), shared=shared)
        return secret, new, ended


def _end(old: Token, now: float, lifetime: float | None) -> float | None:
    """Return when the new token expires, in seconds since the epoch; None for never."""
    if lifetime is None:
        lifetime = math.inf if old.expires is None else old.expires - old.created
    return None if lifetime == math.inf else now + lifetime


def create_shared(path: Path) -> bool:
    """Create a file without tokens in a secrets directory unless there is one; return whether it was created.

    Raises BadTokenFile if there is one that cannot be used, and OSError.
    """
    with private_file.lock_file(path, shared=True):
        if load_if_changed(path, shared=True).version is not None:
            return False
        _save(path, (), shared=True)
        return True


def revoke(path: Path, name: str, *, shared: bool = False) -> Token:
    """Revoke a token, given by its id or its secret, and return it.

    A token that is already revoked keeps its time. Labels are not needed and not written: revocation
    works even if they cannot be used. Raises UnknownToken, BadTokenFile, OSError.
    """
    if not path.parent.is_dir():
        raise UnknownToken
    with private_file.lock_file(path, shared=shared):
        tokens = {token.id: token for token in load_if_changed(path, shared=shared).tokens}
        token = _named(tokens, name)
        if token.revoked is None:
            token = tokens[token.id] = replace(token, revoked=round(time.time(), 3))
            private_file.write_private(path, _rendered(path, tokens.values(), shared=shared), shared=shared)
        return token


def prune(path: Path, *, shared: bool = False) -> list[Token]:
    """Remove the expired tokens and return them. Raises BadTokenFile, OSError."""
    if not path.parent.is_dir():
        return []
    with private_file.lock_file(path, shared=shared):
        tokens, now = load(path, shared=shared), time.time()
        expired = {token.id: token for token in tokens if token.expires is not None and token.expires <= now}
        if expired:
            _save(path, [token for token in tokens if token.id not in expired], shared=shared)
        return list(expired.values())


def _named(tokens: Mapping[str, Token], name: str) -> Token:
    """Return a token by its id or its secret; raises UnknownToken."""
    if name in tokens:
        return tokens[name]
    if name.isascii():
        digest = digest_of(name)
        for token in tokens.values():
            if token.digest == digest:
                return token
    raise UnknownToken


def _save(path: Path, tokens: Collection[Token], *, shared: bool) -> None:
    """Write the tokens and their labels; check first that they can be read back.

    Labels are written first, so that a reader that sees a new token finds its label. Raises OSError;
    BadTokenFile or ValueError if the result would be invalid, before anything is written.
    """
    data = _rendered(path, tokens, shared=shared)
    labels = render_labels({token.id: token.label for token in tokens if token.label is not None})
    _check_size(path, labels)
    labels_path = path.with_name(TOKEN_LABELS_FILE)
    if parse_labels(labels) or labels_path.exists():
        private_file.write_private(labels_path, labels, shared=shared)
    private_file.write_private(path, data, shared=shared)


def _rendered(path: Path, tokens: Collection[Token], *, shared: bool) -> bytes:
    data = render_tokens(tokens, _read(path, shared=shared))
    parse_tokens(data)
    _check_size(path, data)
    return data


def _check_size(path: Path, data: bytes) -> None:
    if len(data) > MAX_FILE_BYTES:
        raise BadTokenFile(f"{path}: is full (limit: {MAX_FILE_BYTES} bytes); run `jobsvc token prune`")


def _labels(path: Path, open_file: private_file.OpenFile, *, shared: bool) -> dict[str, str]:
    """Return the labels by token id; empty if there is no file. Raises BadTokenFile."""
    with private_file.errors_as(BadTokenFile, path):
        data = _read(path, open_file, shared=shared)
        return {} if data is None else parse_labels(data)


def _read(path: Path, open_file: private_file.OpenFile = os.open, *, shared: bool) -> bytes | None:
    """Read a private file; None if it is missing. Raises OSError, and ValueError if it is rejected."""
    try:
        return private_file.read_private(path, MAX_FILE_BYTES, open_file, shared=shared)
    except FileNotFoundError:
        return None
