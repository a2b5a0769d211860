"""Parse and format header fields of RFC 9110 and RFC 9530. Pure functions."""
