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
def test_a_scope_is_granted_by_its_name_or_by_admin_and_by_nothing_else(
    scopes: frozenset[str], wanted: str
) -> None:
    if wanted in scopes or ADMIN in scopes:
        require(token(*scopes), wanted)
    else:
        with pytest.raises(InsufficientScope) as refused:
            require(token(*scopes), wanted)
        assert refused.value.scope == wanted


@given(scopes=SCOPE_SETS, holder=OWNERS, owner=OWNERS)
def test_a_job_is_seen_by_its_owner_to_the_letter_and_by_admin(
    scopes: frozenset[str], holder: str, owner: str
) -> None:
    asked = token(*scopes, owner=holder)
    assert can_see(asked, owner) == (holder == owner or ADMIN in scopes)
    if can_see(asked, owner):
        require_visible(asked, owner)
    else:
        with pytest.raises(JobNotFound):
            require_visible(asked, owner)


@given(scopes=SCOPE_SETS, holder=OWNERS, owner=OWNERS)
def test_what_is_listed_for_a_token_is_what_it_sees(scopes: frozenset[str], holder: str, owner: str) -> None:
    asked = token(*scopes, owner=holder)
    assert (visible_owner(asked) in {None, owner}) == can_see(asked, owner)


def test_another_owners_job_is_refused_in_the_words_of_an_unknown_one() -> None:
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
def test_a_token_lives_until_it_expires_or_is_revoked(
    expires: float | None, revoked: float | None, now: float, *, alive: bool
) -> None:
    assert token(expires=expires, revoked=revoked).alive(now) is alive


def test_a_token_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        token().owner = "bert"  # type: ignore[misc] # that is the point
