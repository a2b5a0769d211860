from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.access import (
    ADMIN,
    JOBS_READ,
    OUTPUTS_READ,
    SCOPES,
    Token,
    can_see,
    require,
    require_visible,
    visible_owner,
)
from jobsvc.domain.errors import InsufficientScope, JobNotFound

SCOPE_SETS = st.frozensets(st.sampled_from([*SCOPES, "unheard-of"]))
OWNERS = st.sampled_from(["", "anna", "Anna", "anna ", "bert"])


def token(
    *scopes: str, owner: str = "anna", expires: float | None = None, revoked: float | None = None
) -> Token:
    return Token("t1", owner, frozenset(scopes), bytes(32), 0.0, expires, revoked)


@given(scopes=SCOPE_SETS, wanted=st.sampled_from(SCOPES))
def test_scope_is_granted_only_by_its_name_or_by_admin(scopes: frozenset[str], wanted: str) -> None:
    if wanted in scopes or ADMIN in scopes:
        require(token(*scopes), wanted)
    else:
        with pytest.raises(InsufficientScope) as refused:
            require(token(*scopes), wanted)
        assert refused.value.scope == wanted


@given(scopes=SCOPE_SETS, holder=OWNERS, owner=OWNERS)
def test_job_is_visible_to_exactly_its_owner_and_to_admin(
    scopes: frozenset[str], holder: str, owner: str
) -> None:
    requester = token(*scopes, owner=holder)
    assert can_see(requester, owner) == (holder == owner or ADMIN in scopes)
    if can_see(requester, owner):
        require_visible(requester, owner)
    else:
        with pytest.raises(JobNotFound):
            require_visible(requester, owner)


@given(scopes=SCOPE_SETS, holder=OWNERS, owner=OWNERS)
def test_token_lists_the_jobs_that_it_can_see(scopes: frozenset[str], holder: str, owner: str) -> None:
    requester = token(*scopes, owner=holder)
    assert (visible_owner(requester) in {None, owner}) == can_see(requester, owner)


def test_job_of_another_owner_is_refused_like_an_unknown_one() -> None:
    with pytest.raises(JobNotFound) as refused:
        require_visible(token(JOBS_READ, OUTPUTS_READ), "bert")
    assert str(refused.value) == str(JobNotFound())


@pytest.mark.parametrize(
    ("expires", "revoked", "now", "alive"),
    [
        (None, None, 1e12, True),
        (100.0, None, 99.999, True),
        (100.0, None, 100.0, False),
        (100.0, None, 101.0, False),
        (None, 50.0, 40.0, False),
        (None, 0.0, 40.0, False),
        (100.0, 50.0, 40.0, False),
        (0.0, None, 0.0, False),
    ],
)
def test_token_is_live_until_it_expires_or_is_revoked(
    expires: float | None, revoked: float | None, now: float, *, alive: bool
) -> None:
    assert token(expires=expires, revoked=revoked).alive(now) is alive


def test_token_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        token().owner = "bert"  # type: ignore[misc] # that is the point
