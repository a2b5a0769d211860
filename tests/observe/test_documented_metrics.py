"""The documented metrics are exactly those of the running service."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import PROJECT, Service

PAGE: Final = (PROJECT / "docs" / "deployment.md").read_text("utf-8")
UNITS: Final = ("_seconds", "_bytes", "_info")


async def measured(service: Service) -> list[Metric]:
    answer = await service.get("/metrics", token=None)
    return list(text_string_to_metric_families(answer.body.decode()))


def name_of(family: Metric) -> str:
    """Return the name to query: a counter's ends in _total."""
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


def labels_of(families: Iterable[Metric]) -> dict[str, set[str]]:
    return {
        name_of(family): {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in families
    }


async def test_table_has_every_metric_with_its_labels_and_no_other(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job("half-written")
    (folder / "status.json").write_bytes(b'{"status": ')
    service = await serve()
    await service.get("/api/jobs/half-written")
    rows = re.findall(r"^\| `((?:jobsvc|process)_\w+)` \|(.*?)\|", PAGE, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == labels_of(await measured(service))


async def test_names_contain_the_unit(serve: Serve) -> None:
    """Seconds and bytes are the only units besides counts."""
    for family in await measured(await serve()):
        name = name_of(family).removesuffix("_total")
        documented = family.documentation.lower()
        if family.type == "histogram" or "time " in documented or "bytes" in documented:
            assert name.endswith(UNITS), name


async def test_readiness_metric_agrees_with_readyz(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve()
    started_at = time.monotonic()
    while (await service.get("/readyz", token=None)).status != 200:
        assert time.monotonic() - started_at < 20
        await pause()
    assert await service.metric("jobsvc_index_complete") == 1
    assert await service.metric("jobsvc_storage_missing") == 0
    assert await service.metric("jobsvc_watcher_wanted") == 0
    assert await service.metric("jobsvc_storage_threads_stuck") == 0
