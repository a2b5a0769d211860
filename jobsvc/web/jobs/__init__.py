"""Jobs on behalf of a request: lookup, files, JSON."""
