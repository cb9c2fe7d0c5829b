"""What may happen to a service: quiet days that must stay silent, and troubles that must fire.

Each begins with 20 minutes of calm; `T` is the moment at which something happens.
"""

import random
from collections.abc import Callable
from typing import Final

from tests.alerts_support import Service

T: Final = 1200
END: Final = T + 2400

STORM: Final = "WebSocketReconnectStorm"
SPIKE: Final = "WebSocketMessageTooBigSpike"

Scenario = Callable[[random.Random], Service]


def running(rng: random.Random, clients: int, replicas: int = 3) -> Service:
    """Replicas up since 0, to which `clients` connected within the first minute."""
    service = Service()
    for number in range(replicas):
        service.start(f"10.0.0.{number}:11009")
    for number in range(clients):
        service.replicas[number % replicas].handshake(rng.uniform(1, 60))
    return service


def visitors(service: Service, rng: random.Random, per_minute: float, stay: float, since: float = 60) -> Service:
    """People who come at an even rate, stay about `stay` seconds and close their tab."""
    at = since
    while (at := at + rng.expovariate(per_minute / 60)) < END:
        visit(service, rng, at, stay)
    return service


def visit(service: Service, rng: random.Random, at: float, stay: float) -> None:
    replica = service.anyone(at, rng)
    left = at + rng.expovariate(1 / stay)
    if replica is not None:
        replica.handshake(at)
        if left < END and replica.alive(left):
            replica.close(left, "1001", "client")


def cut(
    service: Service, rng: random.Random, share: float, at: float = T, spread: float = 1, code: str = "1001"
) -> int:
    """Every replica closes `share` of its connections within `spread` seconds; return how many those are."""
    lost = 0
    for replica in [one for one in service.replicas if one.alive(at)]:
        mine = round(replica.open_at(at) * share)
        for _ in range(mine):
            replica.close(at + rng.uniform(0, spread), code)
        lost += mine
    return lost


def replace(service: Service, at: float, last_scrape: bool = True) -> None:
    """Every replica is replaced by one with another name; `last_scrape` waits until the closes were scraped."""
    for old in [one for one in service.replicas if one.alive(at)]:
        old.died = int(at) + (62 if last_scrape else 1)
        service.start(f"{old.instance}-{int(at)}", int(at))


def return_once(service: Service, rng: random.Random, clients: int, at: float, within: float = 5) -> None:
    """Clients as they should be: a random first delay, and they are back."""
    newest = service.replicas[-3:]
    for _ in range(clients):
        rng.choice(newest).handshake(at + rng.uniform(0.1, within))


def healthy_restart(rng: random.Random) -> Service:
    service = running(rng, 300)
    return_once(service, rng, cut(service, rng, 1), T)
    return service


def healthy_deploy(rng: random.Random) -> Service:
    service = running(rng, 300)
    lost = cut(service, rng, 1)
    replace(service, T)
    return_once(service, rng, lost, T)
    return visitors(service, rng, 20, 600)


def deploy_unscraped(rng: random.Random) -> Service:
    service = running(rng, 300)
    lost = cut(service, rng, 1)
    replace(service, T, last_scrape=False)
    return_once(service, rng, lost, T)
    return service


def deploy_half_scraped(rng: random.Random) -> Service:
    service = running(rng, 300)
    lost = cut(service, rng, 1)
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
    lost = cut(service, rng, 1)
    replace(service, T)
    return_once(service, rng, lost, T)
    return visitors(service, rng, 30, 600, since=T - 100)


def outage(rng: random.Random, seconds: float, stopping: float = 1) -> Service:
    """The service is down behind its taps: attempts are refused, with backoff, until it answers; then all return."""
    service = running(rng, 300)
    for _ in range(cut(service, rng, 1, spread=stopping)):
        tap = rng.choice(service.replicas)
        at, delay = T + rng.uniform(0, stopping) + rng.uniform(0, 5), 1.0
        while at < T + seconds:
            tap.fail(at, rng.choice(("refused", "closed")))
            at, delay = at + rng.uniform(0, delay) + 0.1, min(delay * 2, 60.0)
        tap.handshake(at)
    return service


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
    return_once(service, rng, cut(service, rng, 1), T)
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
    service.replicas[0].reject(T + 5, count=500)
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


def a_few_too_big(rng: random.Random) -> Service:
    """19 connections in 5 minutes end with 1009, among few others."""
    service = running(rng, 300)
    for _ in range(19):
        rng.choice(service.replicas).close(T + rng.uniform(0, 200), "1009")
    return service


def hardly_any_share(rng: random.Random) -> Service:
    """1009 is one in a hundred closes."""
    service = running(rng, 30)
    at = 60.0
    while (at := at + rng.expovariate(10)) < END:
        service.replicas[rng.randrange(3)].handshake(at)
        ending = ("1009", "server") if rng.random() < 0.01 else ("1000", "client")
        service.replicas[rng.randrange(3)].close(at + 1, *ending)
    return service


SILENT: Final[dict[str, Scenario]] = {
    "restart, everyone returns once": healthy_restart,
    "deploy, everyone returns once": healthy_deploy,
    "deploy, last counters never scraped": deploy_unscraped,
    "deploy, last counters scraped of one replica only": deploy_half_scraped,
    "exporters restarted in place": exporters_restarted_in_place,
    "rolling deploy": rolling_deploy,
    "redeploy just after the introduction": redeploy_after_introduction,
    "service down for 2 s": lambda rng: outage(rng, 2),
    "service down for 15 s": lambda rng: outage(rng, 15),
    "service down for 2 min": lambda rng: outage(rng, 120),
    "service down for 14 min after stopping slowly": lambda rng: outage(rng, 840, stopping=120),
    "tab-closing wave": tab_closing_wave,
    "login rush": login_rush,
    "login rush with an evicted replica": login_rush_with_eviction,
    "mobile network": mobile_network,
    "bots turned away": bots_turned_away,
    "short visits": short_visits,
    "storm on a small service": small_service,
    "probe only": probe_only,
    "a few 1009": a_few_too_big,
    "1009 at one in a hundred closes": hardly_any_share,
}


def hammer(service: Service, rng: random.Random, clients: int, since: int = T + 5) -> None:
    """Clients retry every second, without backoff; the service accepts five of them a second."""
    newest = service.replicas[-3:]
    for second, waiting in enumerate(range(clients, 0, -5), start=since):
        for number in range(waiting):
            replica, at = rng.choice(newest), second + rng.random()
            if number < 5:
                replica.handshake(at)
            else:
                replica.reject(at)


def storm_of_rejections(rng: random.Random) -> Service:
    service = running(rng, 300)
    lost = cut(service, rng, 1)
    replace(service, T)
    hammer(service, rng, lost)
    return service


def storm_in_place(rng: random.Random) -> Service:
    service = running(rng, 300)
    hammer(service, rng, cut(service, rng, 1))
    return visitors(service, rng, 30, 600)


def storm_never_scraped(rng: random.Random) -> Service:
    """The pods end before their closes are scraped, the new ones never saw them."""
    service = running(rng, 300)
    lost = cut(service, rng, 1)
    replace(service, T, last_scrape=False)
    hammer(service, rng, lost)
    return service


def storm_of_timeouts(rng: random.Random) -> Service:
    """A third of the returning clients get no answer in time, and try once more."""
    service = running(rng, 300)
    lost = cut(service, rng, 1)
    for _ in range(lost // 3):
        rng.choice(service.replicas).fail(T + rng.uniform(10, 30), "timeout")
    return_once(service, rng, lost, T + 10, within=30)
    return service


def storm_of_accepted(rng: random.Random) -> Service:
    """The service accepts and breaks (1011) at once, so clients come again and again."""
    service = running(rng, 300)
    for _ in range(cut(service, rng, 1, code="1001")):
        replica, at = rng.choice(service.replicas), T + rng.uniform(0, 5)
        for _ in range(6):
            replica.handshake(at)
            replica.close(at + 1, "1011")
            at += rng.uniform(2, 8)
        replica.handshake(at)
    return service


def storm_after_an_outage(rng: random.Random) -> Service:
    """For 20 minutes nobody listens; then the service is back, and so are all of its clients, at once."""
    service = running(rng, 300)
    for number in range(20):
        for tap in service.replicas:
            tap.fail(T + 60 * number, "refused", count=100)
    hammer(service, rng, cut(service, rng, 1), since=T + 1200)
    return service


def rejections_at_once(rng: random.Random) -> Service:
    """All 503 fall between two scrapes."""
    service = running(rng, 120, replicas=1)
    (tap,) = service.replicas
    tap.close(T, count=120)
    tap.reject(T + 2, count=60)
    tap.handshake(T + 3, count=120)
    return service


def too_big_over_replicas(rng: random.Random) -> Service:
    """60 in 5 minutes over 3 replicas: 20 on each, none of them remarkable alone."""
    service = running(rng, 300)
    for number in range(60):
        service.replicas[number % 3].close(T + 5 * number, "1009", rng.choice(("server", "client")))
    return service


def too_big_on_a_new_replica(rng: random.Random) -> Service:
    """A replica that is seconds old: everything happened before its first scrape."""
    service = running(rng, 300)
    new = service.start("new:11009", T)
    new.handshake(T, count=30)
    new.close(T, "1009", count=30)
    return service


def too_big_before_a_restart(rng: random.Random) -> Service:
    """The exporter restarts in the middle of the spike, under the same name."""
    service = running(rng, 90, replicas=1)
    (first,) = service.replicas
    for number in range(13):
        first.close(T + 5 * number, "1009")
    first.died = T + 130
    second = service.start(first.instance, T + 132)
    second.handshake(T + 133, count=40)
    for number in range(13):
        second.close(T + 140 + 8 * number, "1009")
    return service


FIRES: Final[dict[str, tuple[Scenario, str, int]]] = {
    "storm of rejections after a deploy": (storm_of_rejections, STORM, 120),
    "storm of rejections after a restart in place": (storm_in_place, STORM, 120),
    "storm whose closes were never scraped": (storm_never_scraped, STORM, 150),
    "storm of timeouts": (storm_of_timeouts, STORM, 150),
    "storm after an outage of 20 min": (storm_after_an_outage, STORM, 1320),
    "storm of accepted handshakes": (storm_of_accepted, STORM, 150),
    "storm whose rejections fall into one scrape": (rejections_at_once, STORM, 120),
    "1009 spread over 3 replicas": (too_big_over_replicas, SPIKE, 180),
    "1009 on a new replica": (too_big_on_a_new_replica, SPIKE, 45),
    "1009 before and after a restart": (too_big_before_a_restart, SPIKE, 270),
}
"""Scenario, the alert it must fire, and how many seconds after T at the latest with a 15 s scrape."""
