"""What happens to services in the simulations: the parts that quiet days and troubles are made of.

Each begins with 20 minutes of calm; `T` is the moment at which something happens.
"""

import random
from collections.abc import Callable
from typing import Final

from tests.alerts_support import Service

T: Final = 1200
END: Final = T + 2400

Scenario = Callable[[random.Random], Service]


def running(rng: random.Random, clients: int, replicas: int = 3, limit: int = 10_000) -> Service:
    """Replicas up since 0, to which `clients` connected within the first minute."""
    service = Service()
    for number in range(replicas):
        service.start(f"10.0.0.{number}:11009", limit=limit)
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
    service: Service,
    rng: random.Random,
    share: float = 1,
    at: float = T,
    spread: float = 1,
    ending: tuple[str, str] = ("1001", "server"),
) -> int:
    """Every replica loses `share` of its connections within `spread` seconds by `ending`: the code, and by whom.

    Returns how many those are.
    """
    lost = 0
    for replica in [one for one in service.replicas if one.alive(at)]:
        mine = round(replica.open_at(at) * share)
        for _ in range(mine):
            replica.close(at + rng.uniform(0, spread), *ending)
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


def outage(rng: random.Random, seconds: float, stopping: float = 1) -> Service:
    """The service is down behind its taps: attempts are refused, with backoff, until it answers; then all return."""
    service = running(rng, 300)
    for _ in range(cut(service, rng, spread=stopping)):
        tap = rng.choice(service.replicas)
        at, delay = T + rng.uniform(0, stopping) + rng.uniform(0, 5), 1.0
        while at < T + seconds:
            tap.fail(at, rng.choice(("refused", "closed")))
            at, delay = at + rng.uniform(0, delay) + 0.1, min(delay * 2, 60.0)
        tap.handshake(at)
    return service


def unavailable(rng: random.Random, seconds: float) -> Service:
    """What the service needs is down: who is connected stays, newcomers get 503 and try again every few seconds."""
    service = running(rng, 300)
    arrival = 60.0
    while (arrival := arrival + rng.expovariate(1)) < END - 60:
        at, tap = arrival, rng.choice(service.replicas)
        while T <= at < T + seconds:
            tap.reject(at)
            at += rng.uniform(2, 8)
        tap.handshake(at)
        tap.close(at + rng.uniform(10, 50), "1001", "client")
    return service
