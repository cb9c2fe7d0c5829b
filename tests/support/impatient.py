"""`websocket-exporter`, except that a mass close is over after a second: nobody waits ten minutes for a verdict."""

import sys
from functools import partial
from typing import Final

from exporter import app
from exporter.cli import main
from exporter.insight.incident import MassCloseRules
from exporter.insight.insight import Rules

RULES: Final = Rules(mass_close=MassCloseRules(longest=1.0))

if __name__ == "__main__":
    app.App = partial(app.App, insight_rules=RULES)  # type: ignore[misc]
    sys.exit(main())
