"""Limits for clients: request budgets, download slots and stream slots."""
