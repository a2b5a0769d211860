from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.observe import request_id

SIGNATURE = "Zm9v-mFy_" + "x" * 34
"""Of a link's shape."""


def test_new_id_is_16_hexadecimal_digits_and_unique() -> None:
    made = [request_id.new() for _ in range(1000)]
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in made)
    assert len(set(made)) == 1000


@pytest.mark.parametrize(
    "offered", ["a", "proxy-1.2_3", "x" * 64, SIGNATURE[1:], f"{SIGNATURE}x", f".{SIGNATURE[1:]}"]
)
def test_harmless_id_of_the_client_is_kept(offered: str) -> None:
    assert request_id.accept(offered) == offered


@pytest.mark.parametrize(
    "offered",
    [
        None,
        "",
        "x" * 65,
        "a b",
        "a\r\nSet-Cookie: b",
        "é",
        "٣",
        "a\n",
        f"jsvc_{SIGNATURE}",
        "a.JSVC_b",
        SIGNATURE,
    ],
)
def test_any_other_id_is_replaced(offered: str | None) -> None:
    assert re.fullmatch("[0-9a-f]{16}", request_id.accept(offered))


@given(st.text())
def test_no_id_contains_a_dangerous_character(text: str) -> None:
    assert re.fullmatch("[A-Za-z0-9._-]{1,64}", request_id.accept(text))


async def test_each_task_has_the_id_of_its_request() -> None:
    async def answer(own: str) -> str | None:
        request_id.bind(own)
        await asyncio.sleep(0)
        return await asyncio.create_task(inner())

    async def inner() -> str | None:
        await asyncio.sleep(0)
        return request_id.current()

    assert await asyncio.gather(*(answer(f"r{n}") for n in range(5))) == [f"r{n}" for n in range(5)]
    assert request_id.current() is None
