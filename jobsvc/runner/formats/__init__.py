"""Parsers of the lines that renderers print."""
