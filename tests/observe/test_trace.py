from __future__ import annotations

import pytest

from tests.clients.raw_http import connection, request
from tests.conftest import MakeJob, Serve, StartProcess
from tests.eventually import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
FIELD = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
DOWNLOAD = "/api/jobs/job-1/download"


async def test_trace_id_is_in_the_log_lines_of_the_request(start_process: StartProcess) -> None:
    service = start_process()
    async with service.connect() as link:
        await link.ask("GET", "/api/jobs/missing", [FIELD], token=service.token)
        await link.ask("GET", "/api/jobs/missing", token=service.token)
        await link.ask("GET", "/api/jobs/missing", [FIELD, FIELD], token=service.token)
    await until(lambda: len(service.lines("refused")) == 3)
    assert [line.get("traceId") for line in service.lines("refused")] == [TRACE, None, None]


@pytest.mark.usefixtures("treat_new_files_as_stable")
async def test_trace_id_is_in_the_download_log(serve: Serve, make_job: MakeJob) -> None:
    """Small downloads are handled without a task, those of a HTTP/1.0 client are not."""
    make_job(output=b"film")
    service = await serve()
    for version in ("1.1", "1.1", "1.0"):
        async with connection(service.port) as link:
            link.send(request("GET", DOWNLOAD, [FIELD], token=service.token, version=version))
            assert (await link.answer()).body == b"film"
    async with connection(service.port) as link:
        await link.ask("GET", DOWNLOAD, token=service.token)
    lines = await service.wait_for_downloads(4)
    assert [line["traceId"] for line in lines] == [TRACE, TRACE, TRACE, None]


async def test_trace_id_is_not_in_the_response(serve: Serve) -> None:
    service = await serve()
    answer = await service.get("/api/jobs/missing", FIELD)
    assert TRACE not in str(answer)
