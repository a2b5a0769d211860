"""The command `jobsvc` without the limit of log lines, for a test that checks the line of every request."""

from __future__ import annotations

from unittest.mock import patch

from jobsvc.cli import main
from jobsvc.observe.line_limit import LineLimit

if __name__ == "__main__":
    with patch.object(LineLimit, "filter", return_value=True):
        main()
