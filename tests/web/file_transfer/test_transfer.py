"""Who closes the file sender of a transfer that is cancelled."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.sendfile.socket_sender import SendResult, StopReason
from jobsvc.web.file_transfer.transfer import FileTransfer


@pytest.mark.parametrize("result_has_arrived", [True, False])
async def test_file_sender_of_a_cancelled_transfer_is_closed_once(*, result_has_arrived: bool) -> None:
    """The epoll sender closes it, unless it has just returned it with a result."""
    future: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
    executor, sender = Mock(spec=StorageExecutor), Mock()
    executor.send.return_value = future
    transfer = FileTransfer(executor, sender, Mock(key="job-1"), Mock(), send_timeout=10, throttle=None)
    sending = asyncio.create_task(transfer._send_slice(0, 10))
    await asyncio.sleep(0)
    if result_has_arrived:
        future.set_result(SendResult(10, StopReason.CONTINUE))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    transfer.close()
    assert future.cancelled() is not result_has_arrived
    assert executor.close_later.call_count == result_has_arrived
