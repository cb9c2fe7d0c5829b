"""Configuration: a YAML file, environment variables and flags become one frozen `Config`, or every fault at once.

Precedence: flag > environment > file > default. A fault is one line that says where and what.
Sizes are bytes, durations are seconds.
"""

from exporter.config.capture_section import parse_capture_flag
from exporter.config.load import load, parse_tap_flag
from exporter.config.model import (
    DEFAULT_TARGET,
    SETTINGS,
    CaptureConfig,
    Config,
    ConfigError,
    Limits,
    Match,
    Setting,
    TapConfig,
    Target,
    environment_variable,
)
from exporter.config.reload import ReloadPlan, diff_for_reload
from exporter.config.risks import warnings
from exporter.config.values import Address, CaptureMode, KeyRule, UnixPath, parse_listen, parse_upstream, quoted

__all__ = [
    "DEFAULT_TARGET",
    "SETTINGS",
    "Address",
    "CaptureConfig",
    "CaptureMode",
    "Config",
    "ConfigError",
    "KeyRule",
    "Limits",
    "Match",
    "ReloadPlan",
    "Setting",
    "TapConfig",
    "Target",
    "UnixPath",
    "diff_for_reload",
    "environment_variable",
    "load",
    "parse_capture_flag",
    "parse_listen",
    "parse_tap_flag",
    "parse_upstream",
    "quoted",
    "warnings",
]
