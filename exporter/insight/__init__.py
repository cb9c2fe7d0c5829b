"""The insight floor: what can be derived from events. Time and randomness are arguments.

`insight` hears the events of every origin; `reconnects`, `mass_close` and `oversize` are what it derives, `seconds`,
`builds` and `remembered` what these need. `backoff` is how a client ought to come back.
"""
