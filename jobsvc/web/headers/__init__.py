"""Header fields of RFC 9110 and RFC 9530: pure functions."""
