"""Single files: open them safely (`safe_open`), tell their versions apart, write them atomically.

Every file that is served is opened by `safe_open`, or by `jobsvc.storage.nonblocking`, which is as strict.
"""
