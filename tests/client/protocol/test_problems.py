"""Responses that are no success, as exceptions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client import errors
from jobsvc.client.errors import Problem, UnexpectedResponse
from jobsvc.client.protocol.problems import problem_of, refuse, retry_after
from jobsvc.client.protocol.steps import Response
from tests.client.scripted_service import html, problem

TARGET = "/api/jobs/job-1"


def converted(response: Response) -> Problem:
    return problem_of(response.status, response.headers, response.body, TARGET)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("unauthorized", 401, errors.Unauthorized),
        ("insufficient-scope", 403, errors.Unauthorized),
        ("job-not-found", 404, errors.JobNotFound),
        ("log-missing", 404, errors.OutputMissing),
        ("job-failed", 409, errors.NotReady),
        ("output-replaced", 412, errors.OutputReplaced),
        ("too-many-streams", 429, errors.RateLimited),
        ("storage-unavailable", 503, errors.ServiceUnavailable),
        ("a-code-of-later", 400, errors.Problem),
    ],
)
def test_problem_document_has_the_class_of_its_code(code: str, status: int, kind: type[Problem]) -> None:
    error = converted(problem(code, status, "What is wrong.", retry_after="7"))
    assert type(error) is kind
    assert (error.code, error.status, error.detail, error.request_id, error.retry_after) == (
        code,
        status,
        "What is wrong.",
        "r-1",
        7.0,
    )
    assert str(error) == "What is wrong."


@pytest.mark.parametrize("status", [400, 404, 500, 502, 503, 504, 599])
def test_error_of_a_proxy_has_its_status_as_code_and_nothing_of_its_page(status: int) -> None:
    error = converted(html(status))
    assert (error.code, error.status) == (f"http-{status}", status)
    assert "nginx/1.25.3" in str(error)
    assert str(status) in str(error)
    assert "<" not in str(error)


@pytest.mark.parametrize("status", [401, 403, 407])
def test_proxy_that_requires_credentials_is_unauthorized(status: int) -> None:
    assert isinstance(converted(html(status)), errors.Unauthorized)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"[" * 100_000, b'{"code": 5, "detail": "x"}', b'{"code": "<b>", "detail": "x"}'],
)
def test_damaged_problem_document_is_an_error_of_a_proxy(body: bytes) -> None:
    error = converted(Response(503, {"content-type": "application/problem+json"}, body))
    assert error.code == "http-503"


def test_server_name_that_is_not_plain_is_not_shown() -> None:
    assert "script" not in str(converted(html(502, server="<script>")))


def test_control_characters_of_a_detail_are_not_shown() -> None:
    assert str(converted(problem("bad-request", 400, "a\x1b[31m\r\nb"))) == "a [31m  b"


@given(
    st.integers(300, 599),
    st.dictionaries(st.sampled_from(["content-type", "server", "location"]), st.text()),
    st.binary(),
)
def test_any_response_is_a_problem_in_one_printable_line(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    error = converted(Response(status, headers, body))
    assert str(error).isprintable()
    assert "<" not in str(error)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (f"https://farm.example.com{TARGET}", "to https://farm.example.com. Set"),
        (f"https://farm.example.com:8443/render{TARGET}", "to https://farm.example.com:8443/render. Set"),
        ("https://login.example.com/saml?secret=1", "to https://login.example.com. Set"),
        ("HTTPS://user:password@login.example.com?x", "to https://login.example.com. Set"),
        ("/login?next=/api/jobs", "to another path of the same server. Set"),
        ("https://evil.example\x1b[0m/", "to another path of the same server. Set"),
    ],
)
def test_redirect_names_the_origin_only(location: str, shown: str) -> None:
    error = converted(Response(302, {"location": location}, b""))
    assert (error.code, type(error)) == ("http-302", Problem)
    assert shown in str(error)
    assert "JOBSVC_URL" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 30}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:20:00 GMT"}, 0.0),
        # The service's clock counts, if it is known.
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:20 GMT"}, 10.0),
        ({"retry-after": "Wed, 99 Oct 2015 99:99:99 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=1445412480) == seconds


@given(st.text())
def test_any_retry_after_is_seconds_or_nothing(text: str) -> None:
    seconds = retry_after({"retry-after": text})
    assert seconds is None or seconds >= 0


def test_other_success_says_what_responded() -> None:
    with pytest.raises(UnexpectedResponse, match=r"by nginx/1\.25\.3.*text/html.*JOBSVC_URL"):
        refuse(html(200).headers, "JSON")
