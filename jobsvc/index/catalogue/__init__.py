"""What is known of each job, and how fresh it is."""
