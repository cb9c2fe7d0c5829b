"""Grafana dashboards as code: a development-only package; what ships is the JSON in `grafana/`."""

import warnings

# The SDK warns on import that it prefers its newer dashboard schema. That one needs a new Grafana; the classic schema
# is imported and provisioned by every Grafana in use.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard as _dashboard  # noqa: F401
    from grafana_foundation_sdk.builders import timeseries as _timeseries  # noqa: F401
