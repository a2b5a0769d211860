"""What a download keeps on this machine: part files, their records and locks, targets and their names."""
