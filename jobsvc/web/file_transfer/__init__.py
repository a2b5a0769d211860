"""Responses whose body is a file."""
