"""The alerts of deploy/prometheus: checked by promtool, and each one fires when it should and only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.programs.external_programs import needs, run
from tests.programs.service_runner import PROJECT

RULES: Final = PROJECT / "deploy" / "prometheus" / "jobsvc.rules.yaml"
UNIT_TESTS: Final = Path(__file__).with_name("jobsvc.rules.test.yaml")
SEVERITY_BY_GROUP: Final = {"jobsvc-now": "page", "jobsvc-later": "ticket"}


def alerts() -> dict[str, dict[str, Any]]:
    """Return the rules by name, each with the name of its group."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"]: {**rule, "group": group["name"]} for group in groups for rule in group["rules"]}


@pytest.mark.parametrize("command", [("check", "rules", RULES), ("test", "rules", UNIT_TESTS)])
@needs("promtool")
async def test_promtool_accepts_the_rules_and_their_unit_tests(command: tuple[object, ...]) -> None:
    done = await run("promtool", *command)
    assert done.exit_code == 0, done.stdout.decode() + done.stderr


def test_each_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert firing == silent == alerts().keys()


def test_severity_follows_the_group() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] == SEVERITY_BY_GROUP[rule["group"]], name
        assert rule["annotations"]["summary"], name
