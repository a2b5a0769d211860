"""State that several instances share through Redis: budgets, slots, digests and revoked links.

Nothing else has to be shared: all instances read the same job directories. Without `--shared-state`, or while
Redis cannot be used, each instance counts for itself.
"""
