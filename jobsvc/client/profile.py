"""Find the URL and the token of the service: arguments, then the environment, then the saved profile."""

from __future__ import annotations

from jobsvc.client.connection_settings import ConnectionSettings


def resolve(
    url: str | None = None,
    token: str | None = None,
    *,
    profile: str | None = None,
    timeout: float = 30.0,
    retries: int = 5,
    ca_file: str | None = None,
) -> ConnectionSettings:
    """Merge arguments, JOBSVC_URL, JOBSVC_TOKEN, JOBSVC_TOKEN_FILE, JOBSVC_PROFILE and the profile.

    Raises BadConfiguration.
    """
    raise NotImplementedError
