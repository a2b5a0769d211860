"""What a job, a right and an error are. No I/O, no clock."""
