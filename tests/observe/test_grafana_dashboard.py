"""The dashboard and the alert rules use only metrics that the service has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Serve
from tests.programs.service_runner import PROJECT

BOARD: Final[dict[str, Any]] = orjson.loads((PROJECT / "deploy" / "grafana" / "dashboard.json").read_bytes())
PANELS: Final[list[dict[str, Any]]] = BOARD["panels"]
ASKING: Final = [panel for panel in PANELS if panel["type"] != "row"]
RULES: Final = PROJECT / "deploy" / "prometheus" / "jobsvc.rules.yaml"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

# A name before a brace is a metric, and so is every name with the service's prefix.
_METRIC: Final = re.compile(r"\b(?:jobsvc|process)_\w+|\b\w+(?={)")
_MATCHER: Final = re.compile(r"(\w+)(?:=~|!=|=)\"")
_GROUPED: Final = re.compile(r"\bby \(([^)]*)\)")


def rules() -> list[tuple[str, str]]:
    """Return the alerts with their expressions."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every Prometheus query with the panel or alert that uses it."""
    for panel in ASKING:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]
    yield from rules()


async def series_labels(serve: Serve) -> dict[str, set[str]]:
    """Return the labels of every series of the service by name."""
    service = await serve()
    await service.get("/readyz", token=None)
    body = (await service.get("/metrics", token=None)).body.decode()
    found: dict[str, set[str]] = {"up": {"job", "instance"}}
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            found.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    found["jobsvc_records_unreadable_total"] = {"job", "instance", "reason"}  # there once a record is bad
    return found


async def test_every_expression_uses_existing_metrics_and_labels(serve: Serve) -> None:
    series = await series_labels(serve)
    for who, expression in expressions():
        queried = set(_METRIC.findall(expression)) - {"label_values"}
        assert queried, who
        assert queried <= series.keys(), who
        labels = set(_MATCHER.findall(expression))
        for group in _GROUPED.findall(expression):
            labels.update(name.strip() for name in group.split(","))
        assert labels - {"le"} <= set().union(*(series[name] for name in queried)), who
        assert expression.count("(") == expression.count(")"), who


def test_dashboard_can_be_imported() -> None:
    assert {"title", "uid", "schemaVersion", "time", "templating", "panels"} <= BOARD.keys()
    assert not BOARD.get("id")
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["type"] in {"row", "stat", "timeseries"}
        assert panel["title"]
    for panel in ASKING:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0


def test_panels_neither_overlap_nor_exceed_the_width() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert place["w"] > 0 < place["h"]
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, other)


def test_data_source_is_a_variable_everywhere() -> None:
    first, *others = BOARD["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert all(variable["datasource"] == SOURCE for variable in others)
    for panel in ASKING:
        assert panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel["targets"])


def test_every_query_is_limited_to_the_chosen_instances() -> None:
    for panel in ASKING:
        for target in panel["targets"]:
            selectors = re.findall(r"\{([^}]*)\}", target["expr"])
            assert selectors
            assert all('job=~"$job",instance=~"$instance"' in selector for selector in selectors)


@pytest.mark.parametrize(
    "metric",
    [
        "up", "jobsvc_index_complete", "jobsvc_storage_missing", "jobsvc_storage_last_answer_age_seconds",
        "jobsvc_requests_total", "jobsvc_request_duration_seconds_bucket", "jobsvc_downloads_in_progress",
        "jobsvc_download_bytes_total", "jobsvc_downloads_total", "jobsvc_rate_limited_total",
        "jobsvc_watcher_healthy", "jobsvc_watcher_missed_events_total", "jobsvc_reconcile_age_seconds",
        "jobsvc_records_unreadable_now",
    ],
)  # fmt: skip
def test_dashboard_has_the_values_needed_in_an_incident(metric: str) -> None:
    queried = {
        name for panel in ASKING for target in panel["targets"] for name in _METRIC.findall(target["expr"])
    }
    assert metric in queried


def test_each_rule_has_a_unique_name() -> None:
    names = [name for name, _ in rules()]
    assert len(set(names)) == len(names)
    assert all(name.startswith("Jobsvc") for name in names)
