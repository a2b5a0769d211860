"""Threads for blocking calls, and what they share; independent of jobs."""
