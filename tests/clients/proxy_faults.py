"""Faults of networks, proxies and services, for FaultyProxy: each one is a function of FAULTS."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final

from tests.clients.body_pieces import (
    Cut,
    cut_after,
    first,
    flipped,
    followed_by,
    in_small_pieces,
    pieces_of,
    stall_after,
)
from tests.clients.faulty_proxy import Answer, Exchange, Fault

PAGE: Final = b"<!doctype html><title>Sign in</title><p>Sign in to the network of the hotel." + b" " * 600


# Faults of the request


async def strip_range(exchange: Exchange) -> Answer:
    """Remove Range, as cloudflared does: the response is 200 with the whole file."""
    exchange.request.remove("Range")
    return await exchange.forward()


async def shift_range(exchange: Exchange) -> Answer:
    """Request another range, so that Content-Range is right for the bytes, but not for the request."""
    if (requested := exchange.request.get("Range")) is not None and requested.startswith("bytes="):
        start, _, end = requested.removeprefix("bytes=").partition("-")
        moved = max(int(start or 0) - exchange.random.randrange(1, 1000), 0)
        exchange.request.set("Range", f"bytes={moved}-{end}")
    return await exchange.forward()


# Responses of somebody else


async def refuse(exchange: Exchange) -> Answer:
    """Respond with an error that may pass, with or without Retry-After."""
    status = exchange.random.choice((408, 429, 429, 500, 502, 502, 503, 503, 504))
    retry_after = exchange.random.choice((None, "0", "Mon, 30 Nov 2020 10:00:00 GMT"))
    return _page(exchange, status, b"<h1>Try again</h1>", retry_after)


async def show_page(exchange: Exchange) -> Answer:
    """Respond with a page, as the portal of a network does."""
    return _page(exchange, 200, PAGE)


async def repeat_page_as_range(exchange: Exchange) -> Answer:
    """Respond with a page of the requested length as 206."""
    answer = await exchange.forward()
    answer.body = pieces_of((PAGE * (answer.length // len(PAGE) + 1))[: answer.length])
    answer.set("Content-Type", "text/html")
    answer.remove("Repr-Digest", "ETag")
    return answer


def _page(exchange: Exchange, status: int, body: bytes, retry_after: str | None = None) -> Answer:
    fields = [("Content-Type", "text/html"), ("Content-Length", str(len(body)))]
    if retry_after is not None:
        fields.append(("Retry-After", retry_after))
    is_head = exchange.request.first_line.startswith("HEAD ")
    return Answer(f"HTTP/1.1 {status} Fault", fields, pieces_of(b"" if is_head else body))


# Faults of a connection


async def cut_before_request(exchange: Exchange) -> Answer:
    """Reset the connection as an idle one that was just closed: the request has no effect."""
    raise Cut


async def cut_before_response(exchange: Exchange) -> Answer:
    """Reset the connection when the service has responded."""
    await exchange.forward()
    raise Cut


async def cut_body(exchange: Exchange) -> Answer:
    """Reset the connection at a random byte of the body."""
    answer = await exchange.forward()
    answer.body = cut_after(answer.body, exchange.random.randrange(answer.length + 1))
    return answer


async def cut_idle(exchange: Exchange) -> Answer:
    """Close the connection after the response, without having said so."""
    answer = await exchange.forward()
    answer.close = True
    return answer


async def delay(exchange: Exchange) -> Answer:
    """Wait before the response, and send its beginning in small pieces."""
    await asyncio.sleep(exchange.random.random() / 50)
    answer = await exchange.forward()
    answer.body = in_small_pieces(answer.body, exchange.random.randrange(1, 5000))
    return answer


async def stall(exchange: Exchange) -> Answer:
    """Send a part of the body and then nothing, on an open connection."""
    answer = await exchange.forward()
    answer.body = stall_after(answer.body, exchange.random.randrange(answer.length + 1))
    return answer


# Responses with other header fields


async def strip_etag(exchange: Exchange) -> Answer:
    return await _without(exchange, "ETag")


async def strip_content_range(exchange: Exchange) -> Answer:
    return await _without(exchange, "Content-Range")


async def strip_digest(exchange: Exchange) -> Answer:
    return await _without(exchange, "Repr-Digest")


async def weaken_etag(exchange: Exchange) -> Answer:
    """Make the ETag weak, as nginx does where it compresses."""
    answer = await exchange.forward()
    if (tag := answer.get("ETag")) is not None:
        answer.set("ETag", f"W/{tag}")
    return answer


async def rename_etag(exchange: Exchange) -> Answer:
    """Send the ETag of another version."""
    answer = await exchange.forward()
    if answer.get("ETag") is not None:
        answer.set("ETag", '"AAAAAAAAAAAAAAAAAAAAAA"')
    return answer


async def strip_length(exchange: Exchange) -> Answer:
    """Send the body in chunks, or until the end of the connection."""
    return _reframe(exchange, await exchange.forward())


async def wrong_content_range(exchange: Exchange) -> Answer:
    """Send the right bytes with a Content-Range that was not requested, or that is none."""
    answer = await exchange.forward()
    if (sent := answer.get("Content-Range")) is not None and answer.status == 206:
        span, _, total = sent.removeprefix("bytes ").partition("/")
        start, end = map(int, span.split("-"))
        off = exchange.random.randrange(1, 1000)
        wrong = (
            *(f"bytes {start + off}-{end + off}/{total}", f"bytes {start}-{end}/{int(total) + off}"),
            *(f"bytes {start}-{end + off}/{total}", f"bytes {end}-{start}/{total}", "bytes x", ""),
        )
        answer.set("Content-Range", exchange.random.choice(wrong))
    return answer


async def _without(exchange: Exchange, *names: str) -> Answer:
    answer = await exchange.forward()
    answer.remove(*names)
    return answer


def _reframe(exchange: Exchange, answer: Answer) -> Answer:
    """Replace Content-Length by chunks or by the end of the connection."""
    if answer.has_body:
        answer.remove("Content-Length", "Transfer-Encoding")
        if exchange.random.random() < 0.5:
            answer.set("Transfer-Encoding", "chunked")
        else:
            answer.close = True
    return answer


# Responses with other bytes


async def end_early(exchange: Exchange) -> Answer:
    """End the body at a random byte as if it were its end: with a smaller Content-Length, or without one."""
    answer = await exchange.forward()
    if not answer.has_body or answer.length == 0:
        return answer
    count = exchange.random.randrange(answer.length)
    answer.body = first(answer.body, count)
    if exchange.random.random() < 0.5:
        answer.set("Content-Length", count)
        return answer
    return _reframe(exchange, answer)


async def close_early(exchange: Exchange) -> Answer:
    """Close the connection cleanly at a random byte: the body is shorter than its Content-Length."""
    answer = await exchange.forward()
    answer.body = first(answer.body, exchange.random.randrange(answer.length + 1))
    answer.close = True
    return answer


async def append_bytes(exchange: Exchange) -> Answer:
    """Send more bytes than there are: announced, without a length, or after the announced end."""
    answer = await exchange.forward()
    if not answer.has_body:
        return answer
    extra = exchange.random.randbytes(exchange.random.choice((1, 100, 70_000)))
    answer.body = followed_by(answer.body, extra)
    match exchange.random.randrange(3):
        case 0:
            answer.set("Content-Length", answer.length + len(extra))
        case 1:
            return _reframe(exchange, answer)
    return answer


async def flip_byte(exchange: Exchange) -> Answer:
    """Change a byte of a file."""
    answer = await exchange.forward()
    if exchange.is_file and answer.has_body and answer.length > 0:
        answer.body = flipped(answer.body, exchange.random.randrange(answer.length))
    return answer


async def compress(exchange: Exchange) -> Answer:
    """Compress the body, whatever the request accepts."""
    answer = await exchange.forward()
    if answer.has_body and not answer.chunked:
        whole = b"".join([piece async for piece in answer.body])
        packed = gzip.compress(whole, 1)
        answer.body = pieces_of(packed)
        answer.set("Content-Encoding", "gzip")
        answer.set("Content-Length", len(packed))
    return answer


# The file itself


async def replace_before(exchange: Exchange) -> Answer:
    """Replace the file before the service opens it."""
    await exchange.replace_output()
    return await exchange.forward()


async def replace_meanwhile(exchange: Exchange) -> Answer:
    """Replace the file while it is sent."""
    answer = await exchange.forward()
    await exchange.replace_output()
    return answer


def only_for_files(fault: Fault) -> Fault:
    """Return a fault that leaves documents and streams as they are."""

    async def limited(exchange: Exchange) -> Answer:
        return await (fault(exchange) if exchange.is_file else exchange.forward())

    return limited


TRANSIENT: Final[tuple[Fault, ...]] = (
    *(refuse, refuse, cut_before_request, cut_before_response, cut_body, cut_body, cut_idle, delay, stall),
    *(strip_range, shift_range, strip_content_range, wrong_content_range, strip_length, strip_digest),
    *(strip_etag, weaken_etag, rename_etag, close_early, compress),
)
"""Faults that a client can see, or that change nothing."""
FALSE_BYTES: Final[tuple[Fault, ...]] = (show_page, repeat_page_as_range, end_early, append_bytes, flip_byte)
"""Faults by which a client is sent other bytes than the file's."""
REPLACEMENTS: Final[tuple[Fault, ...]] = (replace_before, replace_meanwhile)
FAULTS: Final = TRANSIENT + FALSE_BYTES + REPLACEMENTS
