"""The dashboards' links: to each other, to runbooks, and from the alerts to the panels."""

import itertools
import re
import urllib.parse
from typing import Any

from tests.dashboards_support import (
    BY_UID,
    DASHBOARDS,
    RENDERED,
    SHIPPED_ALERTS,
    content,
    every_dashboard,
    titled,
)


def runbook_of(alert: dict[str, Any]) -> str:
    url: str = alert["annotations"]["runbook_url"]
    return url


def test_every_alert_has_a_panel_that_leads_to_its_runbook() -> None:
    """Beside what an alert watches there is the link to what to do about it; no link leads anywhere else."""
    linked = {link["url"]: link for name in RENDERED for panel in content(name) for link in panel.get("links") or ()}
    assert linked.keys() == {runbook_of(alert) for alert in SHIPPED_ALERTS}
    for link in linked.values():
        assert (link["type"], link["targetBlank"]) == ("link", True)


def test_alerts_link_to_panels_that_exist() -> None:
    """Whatever an alert's annotations say of a dashboard, there is that dashboard, and in it that panel."""
    annotations = [text for alert in SHIPPED_ALERTS for text in alert["annotations"].values()]
    assert annotations
    for uid, query in re.findall(r"/d/([\w-]+)[^?\s]*(?:\?(\S*))?", "\n".join(annotations)):
        assert uid in BY_UID
        for panel in urllib.parse.parse_qs(query).get("viewPanel", ()):
            assert int(panel) in {each["id"] for each in BY_UID[uid]["panels"]}, (uid, panel)


def data_links(name: str) -> list[tuple[str, str]]:
    """(title of the panel, address) of every link on a value."""
    found = []
    for panel in content(name):
        config = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
        own = config["defaults"].get("links") or []
        overridden = [
            each["value"] for over in config["overrides"] for each in over["properties"] if each["id"] == "links"
        ]
        found += [(panel["title"], link["url"]) for link in itertools.chain(own, *overridden)]
    return found


@every_dashboard
def test_links_lead_to_dashboards_that_exist(name: str) -> None:
    """With the variables and the time range that were chosen."""
    internal = [url for _, url in data_links(name) if url.startswith("/")]
    assert {re.match(r"/d/([\w-]+)\?", url)[1] for url in internal} <= set(BY_UID)
    for url in internal:
        assert url.endswith("?${__url_time_range}&${__all_variables}")
    (others,) = DASHBOARDS[name]["links"]
    assert (others["type"], others["includeVars"], others["keepTime"]) == ("dashboards", True, True)
    assert all(set(others["tags"]) <= set(board["tags"]) for board in DASHBOARDS.values())
    assert "placement" not in others


def test_the_overview_leads_to_both_details() -> None:
    """From the number that makes one ask, and from the alert."""
    leads = {(title, url.partition("?")[0]) for title, url in data_links("overview.json")}
    assert {
        ("1009 Message Too Big (1 h)", "/d/websocket-too-big"),
        ("1001 Going Away by server (1 h)", "/d/websocket-reconnects"),
        ("Alerts", "/d/websocket-too-big"),
        ("Alerts", "/d/websocket-reconnects"),
    } <= leads


def test_a_bar_of_the_alerts_panel_leads_to_the_runbook_of_its_alert() -> None:
    """Also for alerts that no other panel mentions; the bar that says "no alert" leads nowhere."""
    overrides = titled("overview.json", "Alerts")["fieldConfig"]["overrides"]

    def links(series: str) -> list[str]:
        """Of the override that applies last."""
        found = []
        for override in overrides:
            if re.search(override["matcher"]["options"].strip("/"), series):
                (found,) = (each["value"] for each in override["properties"] if each["id"] == "links")
        return [link["url"].replace("${__field.labels.alertname}", series.split()[0]) for link in found]

    for alert in SHIPPED_ALERTS:
        assert links(f"{alert['alert']} chat")[0] == runbook_of(alert)
    assert links("WebSocketMessageTooBigSpike chat")[1].startswith("/d/websocket-too-big?")
    assert links("WebSocketReconnectStorm chat")[1].startswith("/d/websocket-reconnects?")
    assert links("no alert") == []
