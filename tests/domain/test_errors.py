from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from jobsvc.domain import errors
from jobsvc.domain.errors import ApiError, InsufficientScope, StorageUnavailable


def below(kind: type[ApiError]) -> Iterator[type[ApiError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


TREE = tuple(kind for kind in below(ApiError) if kind.__module__ == errors.__name__)
ALL: tuple[type[ApiError], ...] = (ApiError, *TREE)
LEAVES = tuple(kind for kind in TREE if not set(kind.__subclasses__()) & set(TREE))


def test_every_error_of_the_module_is_in_the_tree() -> None:
    public = {value for value in vars(errors).values() if isinstance(value, type)} - {ApiError}
    assert public == set(TREE)


def test_every_leaf_has_its_own_code() -> None:
    codes = [leaf.code for leaf in LEAVES]
    assert len(codes) == len(set(codes)) == 19
    assert ApiError.code == "internal"


def test_codes_are_the_documented_ones() -> None:
    assert {kind.code for kind in ALL} == {
        "unauthorized", "insufficient-scope", "cross-origin-request", "job-not-found", "output-missing",
        "file-missing", "log-missing", "not-found",
        "job-not-completed", "job-failed", "job-canceled", "output-replaced", "rate-limited",
        "too-many-files", "too-many-downloads", "too-many-streams", "too-many-connections",
        "storage-unavailable", "bad-request", "request-timeout", "internal",
    }  # fmt: skip


def test_tree_in_the_docstring_shows_every_error() -> None:
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    assert set(re.findall(r"[A-Z][A-Za-z]+", drawing)) == {kind.__name__ for kind in ALL}


@pytest.mark.parametrize("kind", [kind for kind in ALL if "__init__" not in vars(kind)])
def test_error_has_its_detail_and_retry_after(kind: type[ApiError]) -> None:
    refusal = kind("Not now.", retry_after=2.5)
    assert (str(refusal), refusal.detail, refusal.retry_after) == ("Not now.", "Not now.", 2.5)
    assert kind("Never.").retry_after is None


@pytest.mark.parametrize("kind", [errors.JobNotFound, errors.OutputMissing, errors.LogMissing])
def test_not_found_has_the_same_detail_each_time(kind: type[ApiError]) -> None:
    assert kind().detail == kind().detail != ""  # type: ignore[call-arg] # these take no detail
    assert kind().retry_after is None  # type: ignore[call-arg] # as above


def test_missing_scope_is_named() -> None:
    assert InsufficientScope("outputs:read").scope == "outputs:read"
    assert "outputs:read" in InsufficientScope("outputs:read").detail


def test_unresponsive_storage_has_retry_after_five_seconds() -> None:
    assert StorageUnavailable().retry_after == 5
    assert StorageUnavailable("Full.", retry_after=1).retry_after == 1
