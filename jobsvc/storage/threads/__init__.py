"""Threads and what they share; nothing here knows of jobs."""
