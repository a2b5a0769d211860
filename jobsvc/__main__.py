"""Lets `python -m jobsvc` be the command."""

from jobsvc.cli import main

if __name__ == "__main__":
    main()
