"""The sorted job list (`sorted_jobs`), change feeds and subscriptions, updated by the catalogue's changes."""
