"""What the demo plays: how many clients of each habit, and the rhythm of everything."""

from dataclasses import dataclass, field

from exporter.insight.backoff import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Counts of clients, times in seconds, sizes in bytes.

    There are enough clients for the exporter to judge how they come back. `deploy_every` leaves most connections the
    30 s after which the remedy calls them stable; deploys closer together would make well-behaved clients stay away
    longer and longer.
    """

    well_behaved: int = 24
    herd: int = 36
    too_big: int = 1

    arrival: float = 8.0
    """Clients first arrive at random within this time."""
    first_deploy: float = 12.0
    deploy_every: float = 40.0
    away: float = 1.0
    """How long nobody listens during a deploy."""
    admitted_per_second: int = 8
    """Opening handshakes that the service takes in one second once it was deployed; others get 503: a storm hurts."""
    message_limit: int = 64 * 1024

    message_every: float = 2.0
    """Mean time between two messages of one client."""
    visit: float = 60.0
    """Mean time after which a well-behaved client's person leaves."""
    remedy: Policy = field(default_factory=Policy)
    herd_delay: float = 0.5
    """How long each client of the herd waits before each attempt: no backoff, no jitter."""
    oversize: int = 150_000
    oversize_delay: float = 4.0
    """How long the client with the oversize message waits until it connects and sends it again."""
