"""Open (`openat2`) and read files by system calls that fail instead of blocking, for the event loop.

Files are opened as safely as by `jobsvc.storage.files.safe_open`: no symbolic link is followed.
"""
