"""What is known of the jobs, and how fresh it is."""
