"""Receive files over several connections at the same time, and verify them."""
