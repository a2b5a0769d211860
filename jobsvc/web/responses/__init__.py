"""Responses that are in memory."""
