"""List the files of a job's outputs, and send them as one tar or zip archive."""
