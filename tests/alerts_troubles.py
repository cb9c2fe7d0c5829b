"""Troubles: each must fire its alerts, in time, and no other."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.alerts_scenarios import END, Scenario, T, cut, outage, replace, return_once, running, unavailable, visitors
from tests.alerts_support import Service

SPIKE: Final = ("WebSocketMessageTooBigSpike", "warning")
FIRST: Final = ("WebSocketMessageTooBigFirstSeen", "info")
SUSTAINED: Final = ("WebSocketMessageTooBigSustained", "warning")
LOOP: Final = ("WebSocketMessageTooBigLoop", "warning")
NEAR: Final = ("WebSocketMessageSizeNearLimit", "warning")
SURGE_AFTER: Final = ("WebSocketReconnectSurgeAfterRestart", "warning")
HERD: Final = ("WebSocketReconnectHerd", "info")
SURGE: Final = ("WebSocketAbnormalCloseSurge", "warning")
STORM: Final = ("WebSocketReconnectStorm", "critical")
NOT_ACCEPTING: Final = ("WebSocketServiceNotAccepting", "critical")
FAILING: Final = ("WebSocketServiceNotAccepting", "warning")
FULL: Final = ("WebSocketTapConnectionLimit", "warning")


@dataclass(frozen=True, slots=True)
class Trouble:
    """`fires` are all the alerts and severities, and how many seconds after T at the latest with a 15 s scrape."""

    scenario: Scenario
    fires: Mapping[tuple[str, str], int]


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
    lost = cut(service, rng)
    replace(service, T)
    hammer(service, rng, lost)
    return service


def storm_in_place(rng: random.Random) -> Service:
    service = running(rng, 300)
    hammer(service, rng, cut(service, rng))
    return visitors(service, rng, 30, 600)


def storm_never_scraped(rng: random.Random) -> Service:
    """The pods end before their closes are scraped, the new ones never saw them."""
    service = running(rng, 300)
    lost = cut(service, rng)
    replace(service, T, last_scrape=False)
    hammer(service, rng, lost)
    return service


def storm_of_timeouts(rng: random.Random) -> Service:
    """A third of the returning clients get no answer in time, and try once more."""
    service = running(rng, 300)
    lost = cut(service, rng)
    for _ in range(lost // 3):
        rng.choice(service.replicas).fail(T + rng.uniform(10, 30), "timeout")
    return_once(service, rng, lost, T + 10, within=30)
    return service


def storm_of_accepted(rng: random.Random) -> Service:
    """The service accepts and breaks (1011) at once, so clients come again and again."""
    service = running(rng, 300)
    for _ in range(cut(service, rng)):
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
    hammer(service, rng, cut(service, rng), since=T + 1200)
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


def a_few_too_big(rng: random.Random) -> Service:
    """19 connections in 5 minutes end with 1009, among few others."""
    service = running(rng, 300)
    for _ in range(19):
        rng.choice(service.replicas).close(T + rng.uniform(0, 200), "1009")
    return service


def hardly_any_share(rng: random.Random) -> Service:
    """From T on 1009 is one in a hundred closes."""
    service = running(rng, 30)
    at = 60.0
    while (at := at + rng.expovariate(10)) < END:
        service.replicas[rng.randrange(3)].handshake(at)
        ending = ("1009", "server") if at > T and rng.random() < 0.01 else ("1000", "client")
        service.replicas[rng.randrange(3)].close(at + 1, *ending)
    return service


def too_big_in_a_loop(rng: random.Random) -> Service:
    """One client sends the same message again, every half minute, for a quarter of an hour."""
    service = running(rng, 300)
    for number in range(30):
        tap, at = rng.choice(service.replicas), T + 30 * number + rng.uniform(0, 5)
        tap.handshake(at)
        tap.close(at + 1, "1009")
        if number:
            tap.refuse_again(at + 1)
    return service


def dropped_in_a_loop(rng: random.Random) -> Service:
    """The same of a service that says nothing when it refuses: what is suspected is told by the size."""
    service = running(rng, 300)
    for number in range(30):
        tap, at = rng.choice(service.replicas), T + 30 * number + rng.uniform(0, 5)
        tap.handshake(at)
        tap.close(at + 1, "1006", "server")
        if number:
            tap.refuse_again(at + 1, "suspected")
    return service


def growing_messages(rng: random.Random) -> Service:
    """A release sends sixty messages over nine tenths of the limit within three minutes."""
    service = running(rng, 300)
    for _ in range(60):
        rng.choice(service.replicas).message_near_limit(T + rng.uniform(0, 200))
    return service


def storm_after_an_ingress_reload(rng: random.Random) -> Service:
    """The proxy drops everyone, and nobody backs off; the replicas stay."""
    service = running(rng, 300)
    hammer(service, rng, cut(service, rng, ending=("1006", "client")))
    return service


def storm_after_another_code(rng: random.Random) -> Service:
    """The service says 1011 when it shuts down."""
    service = running(rng, 300)
    hammer(service, rng, cut(service, rng, ending=("1011", "server")))
    return service


def storm_on_a_new_replica(rng: random.Random) -> Service:
    """A replica takes over the clients of others that nobody scrapes, and they storm it."""
    service = running(rng, 60)
    service.start("new:11009", T)
    hammer(service, rng, 600)
    return service


def herd(rng: random.Random, fixed: float) -> Service:
    """A healthy restart, but that every client waits for the same time."""
    service = running(rng, 300)
    for _ in range(cut(service, rng, spread=0.2)):
        rng.choice(service.replicas).handshake(T + fixed + rng.uniform(0, 0.3))
    return service


def ingress_reload(rng: random.Random, share: float) -> Service:
    """An ingress in front lets its old workers go: TCP ends at one instant, and the clients are back in seconds."""
    service = running(rng, 300)
    return_once(service, rng, cut(service, rng, share, ending=("1006", "client")), T)
    return visitors(service, rng, 3, 600)


def killed_behind_its_taps(rng: random.Random) -> Service:
    """The service dies without a Close frame and is back after 20 seconds."""
    service = running(rng, 300)
    for _ in range(cut(service, rng, ending=("1006", "server"))):
        tap = rng.choice(service.replicas)
        tap.fail(T + rng.uniform(1, 15), "refused")
        tap.handshake(T + rng.uniform(20, 30))
    return service


def rush_beyond_capacity(rng: random.Random) -> Service:
    """For ten minutes more want in than ever, and the service turns most of them away."""
    service = visitors(running(rng, 300), rng, 20, 3600)
    for second in range(T, T + 600):
        tap = rng.choice(service.replicas)
        tap.reject(second + rng.random(), count=3)
        if second % 2:
            tap.handshake(second + rng.random())
    return service


def one_client_in_a_loop(rng: random.Random) -> Service:
    """For ten minutes one client gets 500 twice a second; nobody else is concerned."""
    service = visitors(running(rng, 300), rng, 30, 600)
    for second in range(T, T + 600):
        service.replicas[0].reject(second + rng.random(), "500", count=2)
    return service


def full_taps(rng: random.Random) -> Service:
    """More clients come than the taps may relay; after ten minutes the surplus has left."""
    service = running(rng, 300, limit=120)
    for tap in service.replicas:
        for _ in range(20):
            at = T + rng.uniform(0, 15)
            tap.handshake(at)
            tap.close(at + 600, "1001", "client")
        tap.handshake(T + 20, "refused_by_exporter", "limit", count=5)
    return service


FIRES: Final[dict[str, Trouble]] = {
    "storm of rejections after a deploy": Trouble(storm_of_rejections, {STORM: 120}),
    "storm of rejections after a restart in place": Trouble(storm_in_place, {STORM: 120}),
    "storm whose closes were never scraped": Trouble(storm_never_scraped, {STORM: 150}),
    "storm of timeouts": Trouble(storm_of_timeouts, {STORM: 150}),
    "storm after an outage of 20 min": Trouble(
        storm_after_an_outage, {HERD: 150, NOT_ACCEPTING: 345, FAILING: 345, STORM: 1320}
    ),
    "storm of accepted handshakes": Trouble(storm_of_accepted, {STORM: 150}),
    "storm whose rejections fall into one scrape": Trouble(rejections_at_once, {STORM: 120, HERD: 150}),
    "1009 spread over 3 replicas": Trouble(too_big_over_replicas, {FIRST: 60, SPIKE: 180}),
    "1009 on a new replica": Trouble(too_big_on_a_new_replica, {FIRST: 45, SPIKE: 45}),
    "1009 before and after a restart": Trouble(too_big_before_a_restart, {FIRST: 60, SPIKE: 270}),
    "a few 1009, below every floor": Trouble(a_few_too_big, {FIRST: 120}),
    "1009 at one in a hundred closes": Trouble(hardly_any_share, {FIRST: 120}),
    "one client in a loop of 1009": Trouble(too_big_in_a_loop, {FIRST: 60, LOOP: 390}),
    "one client in a loop, dropped without a word": Trouble(dropped_in_a_loop, {LOOP: 390}),
    "messages near the limit": Trouble(growing_messages, {NEAR: 180}),
    "storm after an ingress reload": Trouble(storm_after_an_ingress_reload, {SURGE: 45, STORM: 120}),
    "storm after a shutdown with 1011": Trouble(storm_after_another_code, {STORM: 120}),
    "storm on a new replica, what was lost never scraped": Trouble(storm_on_a_new_replica, {SURGE_AFTER: 240}),
    "herd at once": Trouble(lambda rng: herd(rng, 0), {HERD: 150}),
    "herd after three seconds": Trouble(lambda rng: herd(rng, 3), {HERD: 150}),
    "ingress reloaded": Trouble(lambda rng: ingress_reload(rng, 1), {SURGE: 45}),
    "one ingress of three reloaded": Trouble(lambda rng: ingress_reload(rng, 1 / 3), {SURGE: 45}),
    "service killed behind its taps": Trouble(killed_behind_its_taps, {SURGE: 45}),
    "service down for 14 min after stopping slowly": Trouble(
        lambda rng: outage(rng, 840, stopping=120), {NOT_ACCEPTING: 375, FAILING: 375}
    ),
    "service unavailable for 10 min": Trouble(lambda rng: unavailable(rng, 600), {NOT_ACCEPTING: 405, FAILING: 360}),
    "rush beyond what the service can take": Trouble(rush_beyond_capacity, {FAILING: 360}),
    "one client in a loop": Trouble(one_client_in_a_loop, {FAILING: 360}),
    "taps full": Trouble(full_taps, {FULL: 45}),
}
