"""Lets `python -m jobsvc` be the command."""

from jobsvc.cli import main

main()
