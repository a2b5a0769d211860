"""What the operator sees: log lines, request ids, metrics, the download log."""
