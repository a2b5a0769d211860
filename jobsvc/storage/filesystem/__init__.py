"""Find out what file system the jobs are on, and what it can do."""
