"""Log lines, request ids, metrics and the download log, for the operator."""
