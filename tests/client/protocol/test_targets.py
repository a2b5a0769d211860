from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client.errors import JobNotFound, OutputMissing
from jobsvc.client.protocol.targets import job_target, with_query

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in {".", ".."}
)


@given(NAMES, st.lists(NAMES))
def test_each_component_is_one_segment_of_the_path(job_id: str, parts: list[str]) -> None:
    target = job_target(job_id, *parts)
    assert target.isascii()
    segments = urlsplit(target).path.split("/")
    assert [unquote(segment) for segment in segments] == ["", "api", "jobs", job_id, *parts]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_name_that_leads_elsewhere_is_not_found(name: str) -> None:
    with pytest.raises(JobNotFound):
        job_target(name)
    with pytest.raises(OutputMissing):
        job_target("job-1", "files", name)


def test_query_is_encoded_and_leaves_out_what_is_none() -> None:
    parameters: list[tuple[str, object]] = [
        ("status", "a b"),
        ("status", "c&d"),
        ("limit", 5),
        ("cursor", None),
    ]
    assert with_query("/x", parameters) == "/x?status=a%20b&status=c%26d&limit=5"
    assert with_query("/x", [("cursor", None)]) == "/x"


def test_lone_surrogates_are_encoded() -> None:
    assert job_target("\ud800", "files") == "/api/jobs/%ED%A0%80/files"
    assert with_query("/api", [("output", "\udcff")]) == "/api?output=%ED%B3%BF"
