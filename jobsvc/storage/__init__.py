"""The only floor that touches disks: names, safe reads, and the bridge from the loop to threads."""
