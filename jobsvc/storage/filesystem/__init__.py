"""What kind of file system the jobs are on."""
