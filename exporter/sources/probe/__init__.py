"""The probe: a long-lived client of its own, which knows whether a user could connect now.

`probes` owns them, `probe` is one, `opening` makes its connections and `failures` says why they failed; `schedule`
decides when to try again.
"""

from exporter.sources.probe.probes import Probes

__all__ = ["Probes"]
