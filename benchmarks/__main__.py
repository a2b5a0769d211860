"""Prints the service's speed as ratios against yardsticks that run in turn with it."""
