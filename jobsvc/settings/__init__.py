"""Load the operator's settings: each option is defined once, each value is kept with its origin.

Precedence: flag, JOBSVC_* variable, config file, default. Nothing here prints; an invalid value raises
SettingsError.
"""

from jobsvc.settings.directories import default_state_dir
from jobsvc.settings.environment import FAST_PATH_VARIABLE, is_service_link, unknown_variables
from jobsvc.settings.loader import (
    NO_JOBS_ROOT,
    ConfiguredValue,
    SettingsError,
    describe,
    load,
    reload,
    resolve,
)
from jobsvc.settings.option import Option
from jobsvc.settings.options import OPTIONS, Settings

__all__ = [
    "FAST_PATH_VARIABLE",
    "NO_JOBS_ROOT",
    "OPTIONS",
    "ConfiguredValue",
    "Option",
    "Settings",
    "SettingsError",
    "default_state_dir",
    "describe",
    "is_service_link",
    "load",
    "reload",
    "resolve",
    "unknown_variables",
]
