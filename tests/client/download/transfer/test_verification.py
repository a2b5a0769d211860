"""The SHA-256 of the service decides whether a file gets its name."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from jobsvc.client import Corrupt, NotVerified
from jobsvc.client.download.source import Source
from jobsvc.client.download.transfer import verification
from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.current_files import CurrentFiles
from jobsvc.client.download.transfer.file_transfer import Receiver
from tests.client.download.job_downloads import content, download, make_sequence, names
from tests.clients.faulty_proxy import Answer, Exchange, FaultyProxy, faulty_proxy
from tests.clients.proxy_faults import flip_byte
from tests.conftest import MakeJob, Serve

FILM = os.urandom(400_000)


async def strip_digests(exchange: Exchange) -> Answer:
    """Let the service compute no digest, and hide those that it knows."""
    exchange.request.remove("Want-Repr-Digest")
    return await exchange.forward()


async def test_complete_file_without_digest_is_kept_and_verified_by_the_next_run(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PATIENCE_S", 0.0)
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[strip_digests])) as proxy:
        with pytest.raises(NotVerified):
            await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert names(tmp_path, "to*") == ["to.mp4.part", "to.mp4.part.json"]
    monkeypatch.setattr(verification, "PATIENCE_S", 60.0)
    async with faulty_proxy(FaultyProxy(service.port)) as proxy:
        (result,) = await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert not [each for each in proxy.exchanges if each.is_file and each.sent]
    assert result.sha256 == hashlib.sha256(FILM).hexdigest()


async def test_digests_of_many_files_are_waited_for(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "MAX_OPEN", 3)
    frames = make_sequence(make_job, 30)
    service = await serve()
    lists: list[str] = []

    async def strip_digests_of_first_lists(exchange: Exchange) -> Answer:
        if not exchange.is_file:
            lists.append(exchange.target)
        return await (strip_digests(exchange) if len(lists) < 3 else exchange.forward())

    async with faulty_proxy(FaultyProxy(service.port, always=[strip_digests_of_first_lists])) as proxy:
        results = await download(service, tmp_path / "to", port=proxy.port)
    assert content(tmp_path / "to") == frames
    assert all(result.sha256 is not None for result in results)


async def test_pauses_stay_short_while_digests_become_known(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, wait = CurrentFiles.find, Batch.wait
    pauses: list[float] = []

    def find_one(current: CurrentFiles, sources: Sequence[Source]) -> list[str | None]:
        found = find(current, sources)
        known = [index for index, digest in enumerate(found) if digest is not None][:1]
        return [digest if index in known else None for index, digest in enumerate(found)]

    def record_wait(batch: Batch, seconds: float, receiver: Receiver | None = None) -> None:
        pauses.append(seconds)
        wait(batch, seconds, receiver)

    monkeypatch.setattr(CurrentFiles, "find", find_one)
    monkeypatch.setattr(Batch, "wait", record_wait)
    make_sequence(make_job, 12)
    service = await serve()
    lists: list[str] = []

    async def strip_first_digests(exchange: Exchange) -> Answer:
        if not exchange.is_file:
            lists.append(exchange.target)
        is_get = exchange.request.first_line.startswith("GET ")
        is_stripped = is_get and (exchange.is_file or len(lists) == 1)
        return await (strip_digests(exchange) if is_stripped else exchange.forward())

    async with faulty_proxy(FaultyProxy(service.port, always=[strip_first_digests])) as proxy:
        await download(service, tmp_path / "to", port=proxy.port)
    assert len(pauses) >= 11
    assert sorted(pauses)[len(pauses) // 2] <= 0.02


async def test_wrong_file_whose_digest_was_waited_for_is_downloaded_again(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "MAX_OPEN", 0)
    frames = make_sequence(make_job, 10)
    service = await serve()
    sent: list[str] = []

    async def flip_first(exchange: Exchange) -> Answer:
        if not exchange.is_file:
            return await (exchange.forward() if sent else strip_digests(exchange))
        if exchange.request.first_line.startswith("HEAD "):
            return await exchange.forward()
        sent.append(exchange.target)
        exchange.request.remove("Want-Repr-Digest")
        return await (flip_byte(exchange) if len(sent) == 1 else exchange.forward())

    async with faulty_proxy(FaultyProxy(service.port, always=[flip_first])) as proxy:
        await download(service, tmp_path / "to", port=proxy.port)
    assert len(sent) == 11
    assert content(tmp_path / "to") == frames


async def test_files_that_are_replaced_before_their_digests_are_known(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "MAX_OPEN", 0)
    make_sequence(make_job, 10)
    service = await serve()
    lists: list[str] = []
    new: dict[str, bytes] = {}

    async def replace_before_second_list(exchange: Exchange) -> Answer:
        if not exchange.is_file:
            lists.append(exchange.target)
            if len(lists) == 2:
                new.update(make_sequence(make_job, 10))
        return await (exchange.forward() if len(lists) > 1 else strip_digests(exchange))

    async with faulty_proxy(FaultyProxy(service.port, always=[replace_before_second_list])) as proxy:
        await download(service, tmp_path / "to", port=proxy.port)
    assert content(tmp_path / "to") == new


def change_one_that_is_not_locked(directory: Path) -> list[str]:
    """Change a part file that only waits for its digest; return its name, if there is one."""
    for path in directory.glob("*.part"):
        with path.open("r+b") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            return [path.name]
    return []


async def test_file_that_changes_while_its_digest_is_waited_for_is_downloaded_again(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "MAX_OPEN", 0)
    frames = make_sequence(make_job, 10)
    service = await serve()
    changed: list[str] = []

    async def change_part_file(exchange: Exchange) -> Answer:
        if not exchange.is_file and not changed:
            changed.extend(change_one_that_is_not_locked(tmp_path / "to"))
        return await (exchange.forward() if changed else strip_digests(exchange))

    async with faulty_proxy(FaultyProxy(service.port, always=[change_part_file])) as proxy:
        await download(service, tmp_path / "to", port=proxy.port)
    assert changed
    assert content(tmp_path / "to") == frames


async def test_wrong_file_is_downloaded_once_more(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    sent: list[str] = []

    async def flip_first(exchange: Exchange) -> Answer:
        if exchange.is_file:
            sent.append(exchange.target)
        return await (flip_byte(exchange) if len(sent) == 1 else exchange.forward())

    async with faulty_proxy(FaultyProxy(service.port, always=[flip_first])) as proxy:
        await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert (tmp_path / "to.mp4").read_bytes() == FILM


async def test_file_that_stays_wrong_is_removed(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[flip_byte])) as proxy:
        with pytest.raises(Corrupt):
            await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert names(tmp_path, "to*") == []


async def test_byte_that_changed_on_disk_is_found(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PATIENCE_S", 0.0)
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[strip_digests])) as proxy:
        with pytest.raises(NotVerified):
            await download(service, tmp_path / "to.mp4", port=proxy.port)
    part = tmp_path / "to.mp4.part"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    monkeypatch.setattr(verification, "PATIENCE_S", 60.0)
    await download(service, tmp_path / "to.mp4")
    assert (tmp_path / "to.mp4").read_bytes() == FILM


async def test_file_that_is_replaced_before_its_digest_is_known(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    new = os.urandom(100_000)

    async def replace_when_asked(exchange: Exchange) -> Answer:
        if exchange.request.first_line.startswith("HEAD ") and not replaced:
            replaced.append(1)
            make_job(output=new)
        elif not replaced:
            exchange.request.remove("Want-Repr-Digest")
        return await exchange.forward()

    replaced: list[int] = []
    async with faulty_proxy(FaultyProxy(service.port, always=[replace_when_asked])) as proxy:
        await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert (tmp_path / "to.mp4").read_bytes() == new


async def test_empty_file_is_verified_by_the_digest_of_the_service(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PATIENCE_S", 0.2)
    make_job(output=b"")
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[strip_digests])) as proxy:
        with pytest.raises(NotVerified):
            await download(service, tmp_path / "to.mp4", port=proxy.port)
    monkeypatch.setattr(verification, "PATIENCE_S", 60.0)
    (result,) = await download(service, tmp_path / "to.mp4")
    assert (tmp_path / "to.mp4").read_bytes() == b""
    assert result.sha256 == hashlib.sha256(b"").hexdigest()


async def test_digest_is_not_required_without_verification(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port)) as proxy:
        (result,) = await download(service, tmp_path / "to.mp4", port=proxy.port, verify=False)
    assert result.sha256 is None
    assert all(each.request.get("Want-Repr-Digest") is None for each in proxy.exchanges)
