"""The table of alerts in docs/deployment.md has each alert of deploy/prometheus, and no other."""

from __future__ import annotations

import re

from tests.programs.service_runner import PROJECT


def test_table_says_what_to_do_about_each_alert() -> None:
    rules = (PROJECT / "deploy" / "prometheus" / "jobsvc.rules.yaml").read_text("utf-8")
    page = (PROJECT / "docs" / "deployment.md").read_text("utf-8")
    documented = re.findall(r"^\| `(Jobsvc\w+)` \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    assert documented == re.findall(r"- alert: (\w+)", rules)
