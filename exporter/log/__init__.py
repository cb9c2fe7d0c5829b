"""Logs: one event is one line on standard error, whatever peers wrote into it, and logging never holds up the relay.

JSON lines, or for people on a terminal the console format. Standard error, as other exporters do; standard output
belongs to what a command was asked to print. `events` says what is in a line, `rendering` makes text of it, `writer`
hands it to the pipe, and `setup` ties them together.
"""

from exporter.log.events import EventLog
from exporter.log.setup import configure, dropped_lines, set_level, shutdown

__all__ = ["EventLog", "configure", "dropped_lines", "set_level", "shutdown"]
