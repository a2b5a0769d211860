"""Parse and format header fields: ranges (`byte_ranges`), conditions, dates, digests. Pure functions."""
