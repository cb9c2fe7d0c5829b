"""Quiet days, on which no alert may fire at any moment."""

import math
import random
from typing import Final

from tests.alerts_scenarios import (
    END,
    Scenario,
    T,
    cut,
    outage,
    replace,
    return_once,
    running,
    unavailable,
    visit,
    visitors,
)
from tests.alerts_support import Service


def healthy_restart(rng: random.Random) -> Service:
    service = running(rng, 300)
    return_once(service, rng, cut(service, rng), T)
    return service


def healthy_deploy(rng: random.Random) -> Service:
    service = running(rng, 300)
    lost = cut(service, rng)
    replace(service, T)
    return_once(service, rng, lost, T)
    return visitors(service, rng, 20, 600)


def deploy_unscraped(rng: random.Random) -> Service:
    service = running(rng, 300)
    lost = cut(service, rng)
    replace(service, T, last_scrape=False)
    return_once(service, rng, lost, T)
    return service


def deploy_half_scraped(rng: random.Random) -> Service:
    service = running(rng, 300)
    lost = cut(service, rng)
    replace(service, T, last_scrape=False)
    service.replicas[0].died = T + 62
    return_once(service, rng, lost, T)
    return service


def exporters_restarted_in_place(rng: random.Random) -> Service:
    service = running(rng, 300)
    for old in service.replicas[:]:
        old.died = T
        service.start(old.instance, T + 3)
    return_once(service, rng, 300, T + 3)
    return service


def rolling_deploy(rng: random.Random) -> Service:
    """Ten replicas, one a minute; each client is cut when its replica goes, and comes back half a minute later."""
    service = running(rng, 500, replicas=10)
    for number, old in enumerate(service.replicas[:]):
        at = T + 60 * number
        old.close(at, count=50)
        old.died = at + 62
        new = service.start(f"new-{number}:11009", at)
        for _ in range(50):
            new.handshake(at + rng.uniform(1, 60))
    return visitors(service, rng, 20, 600)


def redeploy_after_introduction(rng: random.Random) -> Service:
    """The exporter is new: everyone has just connected when the next deploy follows two minutes later."""
    service = Service()
    for number in range(3):
        service.start(f"10.0.0.{number}:11009", T - 120)
    return_once(service, rng, 300, T - 120)
    lost = cut(service, rng)
    replace(service, T)
    return_once(service, rng, lost, T)
    return visitors(service, rng, 30, 600, since=T - 100)


def tab_closing_wave(rng: random.Random) -> Service:
    """A show ends: nearly everyone closes the tab at once, looks at two other pages for a moment, and comes back."""
    service = running(rng, 600)
    for number in range(500):
        tap, at = service.replicas[number % 3], T + rng.uniform(0, 5)
        tap.close(at, "1001", "client")
        for _ in range(2):
            at += rng.uniform(1, 30)
            tap.handshake(at)
            at += rng.uniform(1, 10)
            tap.close(at, "1001", "client")
        tap.handshake(at + 5)
    return service


def login_rush(rng: random.Random) -> Service:
    """Nine o'clock: twenty times the usual arrivals, and they stay."""
    service = visitors(running(rng, 300), rng, 5, 3600)
    for _ in range(3000):
        visit(service, rng, T + rng.uniform(0, 1800), 7200)
    return service


def login_rush_with_eviction(rng: random.Random) -> Service:
    service = login_rush(rng)
    evicted, at = service.replicas[0], T + 300
    lost = evicted.open_at(at)
    evicted.events = [event for event in evicted.events if event[0] < at]
    evicted.close(at, count=lost)
    evicted.died = at + 62
    for _ in range(lost):
        rng.choice(service.replicas[1:]).handshake(at + rng.uniform(0, 5))
    return service


def mobile_network(rng: random.Random) -> Service:
    """40 % of all connections end without a Close frame, and their clients come back at once; then a deploy."""
    service = running(rng, 300)
    at = 60.0
    while (at := at + rng.expovariate(1)) < END:
        tap = service.replicas[rng.randrange(3)]
        tap.close(at, *rng.choice((("1006", "client"), ("1006", "client"), ("1001", "client"), ("1000", "client"))))
        tap.handshake(at + rng.uniform(0, 3))
    return_once(service, rng, cut(service, rng, 0.9), T)
    return service


def bots_turned_away(rng: random.Random) -> Service:
    """Two in three handshakes are always rejected with 401; a deploy does not make that a storm."""
    service = running(rng, 100)
    at = 60.0
    while (at := at + rng.expovariate(1)) < END:
        service.replicas[rng.randrange(3)].reject(at, "401")
    return_once(service, rng, cut(service, rng), T)
    return service


def short_visits(rng: random.Random) -> Service:
    """Half a minute each, 240 a minute: a deploy adds little to what comes and goes anyway."""
    service = visitors(running(rng, 30), rng, 240, 30)
    return_once(service, rng, cut(service, rng, 0.8), T)
    return service


def small_service(rng: random.Random) -> Service:
    """19 clients storm: below the floor of 20."""
    service = running(rng, 19, replicas=1)
    service.replicas[0].close(T, count=19)
    for _ in range(500):
        service.replicas[0].reject(T + rng.uniform(5, 60))
    return service


def probe_only(rng: random.Random) -> Service:
    """The probe's own connections are cut and refused, 1009 among them."""
    service = Service()
    probe = service.start("10.0.0.0:11009", source="probe")
    probe.handshake(1, count=200)
    probe.close(T, count=100)
    probe.close(T, "1009", count=100)
    probe.reject(T + 5, count=500)
    return service


def lunch_time_wave(rng: random.Random, *, swept: bool = False) -> Service:
    """Noon: within ten minutes three in five phones leave the Wi-Fi without a word, and come back by another network.

    `swept` is a service that itself ends whoever did not answer its Ping, every 30 seconds.
    """
    service = running(rng, 600)
    for number in range(360):
        tap, at = service.replicas[number % 3], rng.gauss(T + 300, 150)
        tap.handshake(at + rng.uniform(5, 60))
        if swept:
            tap.close(30 * math.ceil(at / 30), "1006", "server")
        else:
            tap.close(at, "1006", "client")
    return service


def hardly_any_goodbyes(rng: random.Random) -> Service:
    """Four in five connections end without a Close frame, after three minutes on average: the habit of an app."""
    service = running(rng, 0)
    arrivals = [rng.uniform(0, 60) for _ in range(120)]
    while arrivals[-1] < END:
        arrivals.append(max(arrivals[-1], 60) + rng.expovariate(2 / 3))
    for arrival in arrivals:
        tap, left = rng.choice(service.replicas), arrival + rng.expovariate(1 / 180)
        tap.handshake(arrival)
        if left < END:
            tap.close(left, "1006" if rng.random() < 0.8 else "1001", "client")
    return service


def a_show_ends(rng: random.Random) -> Service:
    """Everybody leaves within two minutes: most close the tab, in the other apps the connection just goes."""
    service = running(rng, 600)
    for number in range(570):
        ending = "1006" if number % 20 < 9 else "1001"
        service.replicas[number % 3].close(T + rng.uniform(0, 120), ending, "client")
    return service


def one_replica_crashes(rng: random.Random) -> Service:
    """One in ten dies behind its tap; it is back after half a minute."""
    service = running(rng, 500, replicas=10)
    service.replicas[0].close(T, "1006", count=50)
    for _ in range(50):
        rng.choice(service.replicas[1:]).handshake(T + rng.uniform(0.1, 5))
    return service


def exporters_drained(rng: random.Random) -> Service:
    """The exporters end what they relay, as they are replaced; everyone returns once."""
    service = running(rng, 300)
    lost = cut(service, rng, spread=8, ending=("1006", "exporter"))
    replace(service, T + 8)
    return_once(service, rng, lost, T + 8)
    return service


def nearly_full(rng: random.Random) -> Service:
    """Taps at five sixths of their limit, and for two minutes above nine tenths."""
    service = running(rng, 300, limit=120)
    for number in range(42):
        at = T + rng.uniform(0, 15)
        service.replicas[number % 3].handshake(at)
        service.replicas[number % 3].close(at + 120, "1001", "client")
    return service


def shutdown_with_another_code(rng: random.Random) -> Service:
    """hypercorn says 1011 when it shuts down; everyone returns once."""
    service = running(rng, 300)
    return_once(service, rng, cut(service, rng, ending=("1011", "server")), T)
    return service


def staggered_deploy(rng: random.Random) -> Service:
    """A drain in batches, over half a minute on each of six replicas, one after the other; each client returns once."""
    service = running(rng, 480, replicas=6)
    for number, old in enumerate(service.replicas[:]):
        begin = T + 45 * number
        new = service.start(f"new-{number}:11009", begin)
        for client in range(80):
            at = begin + 30 * client / 80
            old.close(at)
            new.handshake(at + rng.uniform(0.1, 5))
        old.died = begin + 92
    return service


def taken_over_calmly(rng: random.Random) -> Service:
    """A replica takes over the clients of others that nobody scrapes; they come once each."""
    service = running(rng, 300)
    new = service.start("new:11009", T)
    for _ in range(600):
        new.handshake(T + rng.uniform(0.1, 5))
    return service


def rush_of_short_visits(rng: random.Random) -> Service:
    """Twenty times the usual visitors, half a minute each; a replica is added for them."""
    service = visitors(running(rng, 30), rng, 15, 30)
    service.start("new:11009", T + 60)
    for _ in range(3000):
        visit(service, rng, T + rng.uniform(0, 600), 30)
    return service


SILENT: Final[dict[str, Scenario]] = {
    "restart, everyone returns once": healthy_restart,
    "deploy, everyone returns once": healthy_deploy,
    "deploy, last counters never scraped": deploy_unscraped,
    "deploy, last counters scraped of one replica only": deploy_half_scraped,
    "exporters restarted in place": exporters_restarted_in_place,
    "exporters drained": exporters_drained,
    "rolling deploy": rolling_deploy,
    "staggered deploy, drained in batches": staggered_deploy,
    "shutdown with 1011, everyone returns once": shutdown_with_another_code,
    "a new replica takes over unseen clients": taken_over_calmly,
    "rush of short visits, a replica is added": rush_of_short_visits,
    "redeploy just after the introduction": redeploy_after_introduction,
    "service down for 2 s": lambda rng: outage(rng, 2),
    "service down for 15 s": lambda rng: outage(rng, 15),
    "service down for 2 min": lambda rng: outage(rng, 120),
    "service unavailable for 2 min": lambda rng: unavailable(rng, 120),
    "one replica of ten crashes": one_replica_crashes,
    "tab-closing wave": tab_closing_wave,
    "a show ends": a_show_ends,
    "lunch-time wave": lunch_time_wave,
    "lunch-time wave, ended by the server": lambda rng: lunch_time_wave(rng, swept=True),
    "hardly any goodbyes": hardly_any_goodbyes,
    "login rush": login_rush,
    "login rush with an evicted replica": login_rush_with_eviction,
    "mobile network": mobile_network,
    "bots turned away": bots_turned_away,
    "short visits": short_visits,
    "storm on a small service": small_service,
    "probe only": probe_only,
    "taps nearly full": nearly_full,
}
