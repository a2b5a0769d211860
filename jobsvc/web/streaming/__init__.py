"""Requests that stay open."""
