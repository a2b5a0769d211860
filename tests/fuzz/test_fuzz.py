"""A short run of the fuzzer; `make fuzz` is a long one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz.reference import Kind, read
from tests.programs.proxies import PROXIES, installed
from tests.programs.service_runner import PROJECT


def assert_no_fault(*options: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", *options]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=55, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_fuzzed_requests_get_the_responses_that_the_rfc_requires() -> None:
    assert_no_fault("--count", "2500", "--seed", "15")


@pytest.mark.parametrize("program", PROXIES)
def test_fuzzed_requests_through_a_proxy_affect_no_other_client(program: str) -> None:
    if not installed(program):
        pytest.skip(f"not installed: {program}")
    assert_no_fault("--behind", program, "--count", "300", "--seed", "15")


def kinds(data: bytes) -> list[Kind]:
    return [each.kind for each in read(data)]


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def test_reference_parser_distinguishes_requests_from_other_data() -> None:
    assert kinds(GET + b"\r\n" + GET + b"\r\n") == [Kind.ANSWERED] * 2
    assert kinds(b"\r\n" + GET + b"Content-Length: 3\r\n\r\nabc" + GET + b"\r\n") == [Kind.ANSWERED] * 2
    assert kinds(GET + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n") == [Kind.ANSWERED]
    assert kinds(GET + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n") == [Kind.UNFINISHED]
    assert kinds(GET + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc") == [Kind.REFUSED]
    assert kinds(GET + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc") == [Kind.REFUSED]
    assert kinds(GET + b" folded\r\n\r\n") == [Kind.REFUSED]
    assert kinds(GET.replace(b"GET", b"CONNECT") + b"\r\n" + GET) == [Kind.REFUSED]
    assert kinds(GET + b"Connection: close\r\n\r\n" + GET + b"\r\n") == [Kind.ANSWERED]
    assert kinds(GET) == [Kind.UNFINISHED]
