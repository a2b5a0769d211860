"""A page is signed out within two seconds of `jobsvc token revoke`, whatever it shows."""

from __future__ import annotations

import sys
import time
from typing import Final

import pytest
from playwright.async_api import expect

from tests.conftest import MakeJob, Serve
from tests.page.conftest import OpenPage
from tests.programs.external_programs import run
from tests.programs.service_runner import Service

WITHIN_S: Final = 2.0
FRAME_S: Final = 0.5
"""What Chromium may take on a busy machine to show what it has received."""
SCREENS: Final = {"list": "./", "job": "?job=job-1", "log": "?job=job-1&view=log"}


@pytest.mark.alone
@pytest.mark.parametrize("screen", SCREENS)
async def test_page_is_signed_out_within_two_seconds_of_the_revocation(
    serve: Serve, make_job: MakeJob, open_page: OpenPage, screen: str
) -> None:
    make_job(status="rendering", log=b"first line\n")
    service = await serve()
    page = await open_page(service, SCREENS[screen])
    await expect(page.get_by_text("first line" if screen == "log" else "job-1").first).to_be_visible()
    await revoke_token(service)
    revoked_at = time.monotonic()
    await expect(page.get_by_label("Token")).to_be_visible()
    assert time.monotonic() - revoked_at < WITHIN_S + FRAME_S
    assert "job-1" not in await page.locator("body").inner_text()


async def revoke_token(service: Service) -> None:
    """Run the command as an operator does."""
    account = (await service.get("/api/me")).json()
    words = ("-m", "jobsvc", "token", "revoke", account["id"], "--state-dir", service.state_dir)
    ended = await run(sys.executable, *words)
    assert ended.exit_code == 0, ended.stderr
