from __future__ import annotations

import ssl

import pytest

from jobsvc.client.transport.failures import Peer, connecting_failed

PEER = Peer("render.test:443")


def certificate_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "of OpenSSL")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "message", "text"),
    [
        (10, "certificate has expired", " has expired."),
        (64, "IP address mismatch", " is for another host name: check the URL."),
        (
            20,
            "no issuer",
            " is not trusted (no issuer): name the file of its certificate authority with --ca-file",
        ),
        (9, "certificate is not yet valid", " is not valid: certificate is not yet valid."),
    ],
)
def test_reason_why_a_certificate_is_refused_is_given(code: int, message: str, text: str) -> None:
    problem = connecting_failed(certificate_error(code, message), PEER, 1)
    assert str(problem).startswith(f"The certificate of render.test:443{text}")
    assert not problem.retryable


def test_other_error_of_tls_is_given_in_words() -> None:
    error = ssl.SSLError(1, "of OpenSSL")
    error.reason = "TLSV1_ALERT_PROTOCOL_VERSION"
    problem = connecting_failed(error, PEER, 1)
    assert str(problem) == "The TLS connection to render.test:443 failed: tlsv1 alert protocol version."
    assert problem.retryable
