"""`python -m dashboards.build` writes every dashboard to `dashboards/grafana/` as JSON that Grafana imports."""

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.overview import overview
from dashboards.reconnects import reconnects
from dashboards.too_big import too_big

OUTPUT: Final = Path(__file__).parent / "grafana"

BUILDERS: Final = {"overview": overview, "too-big": too_big, "reconnects": reconnects}
"""Each dashboard by the name of its file."""


def render() -> dict[str, str]:
    """The JSON text of each dashboard by its file name."""
    return {
        f"{name}.json": json.dumps(build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        for name, build in BUILDERS.items()
    }


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    for name, text in render().items():
        (OUTPUT / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
