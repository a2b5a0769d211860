"""Creates certificates for tests with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def create_certificate(
    folder: Path, names: str = "DNS:localhost,IP:127.0.0.1", *options: object, days: int = 2
) -> Path:
    """Create a key and a certificate that is signed with it: `key`, `certificate`, and `pem` with both.

    `names` are its subjectAltName, `options` further ones of openssl-req(1). Return the certificate.
    """
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", folder / "key", "-out", folder / "certificate", "-days", str(days))
    subject = ("-subj", "/CN=localhost", "-addext", f"subjectAltName={names}")
    command = ("openssl", "req", "-x509", *curve, *files, *subject, *options)
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    (folder / "pem").write_bytes((folder / "certificate").read_bytes() + (folder / "key").read_bytes())
    return folder / "certificate"
