"""jobsvc: status, failures and finished files of render jobs, over REST, straight from their directories."""

__version__ = "0.1.0"
