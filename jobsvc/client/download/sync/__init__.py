"""Copy the files of all completed jobs into a directory, continuing where the last run stopped."""

from jobsvc.client.download.sync.job_sync import sync_jobs

__all__ = ["sync_jobs"]
