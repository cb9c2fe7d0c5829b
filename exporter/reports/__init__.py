"""What services report of their WebSockets: from the bytes of a request to events, and what those add up to.

Pure: bytes and headers in, values out; the clock is an argument. `decode` takes the body of a request apart and gives
each event, in steps, as a `Report` or as the reason why it cannot be counted; a body that cannot be taken at all is a
`BodyFault`.
`PLATFORMS` does the same for the events of managed platforms. `verify` says who sent a request, `openapi` what may be
sent, and `tally` what events add to the counts. Nothing here knows which targets there are or which ids were seen.
"""

from exporter.reports.bodies import MAX_EVENT, MAX_EVENTS, BodyFault, Events
from exporter.reports.decode import decode, is_readable
from exporter.reports.platforms import PLATFORMS, Platform
from exporter.reports.report import Item, Report, check
from exporter.reports.schema import openapi
from exporter.reports.signatures import SignatureFault, parse_secrets, verify

__all__ = [
    "MAX_EVENT",
    "MAX_EVENTS",
    "PLATFORMS",
    "BodyFault",
    "Events",
    "Item",
    "Platform",
    "Report",
    "SignatureFault",
    "check",
    "decode",
    "is_readable",
    "openapi",
    "parse_secrets",
    "verify",
]
