"""What the operator decided: each option once, each value with where it came from.

Flag > JOBSVC_* > config file > default. Nothing here prints, and a wrong value is a SettingsError.
"""

from jobsvc.settings.directories import default_state_dir
from jobsvc.settings.environment import is_service_link, unknown_variables
from jobsvc.settings.loader import NO_JOBS_ROOT, ConfiguredValue, SettingsError, load, resolve
from jobsvc.settings.options import OPTIONS, Option, Settings, Watch

__all__ = [
    "NO_JOBS_ROOT",
    "OPTIONS",
    "ConfiguredValue",
    "Option",
    "Settings",
    "SettingsError",
    "Watch",
    "default_state_dir",
    "is_service_link",
    "load",
    "resolve",
    "unknown_variables",
]
