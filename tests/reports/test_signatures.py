"""Standard Webhooks signatures, against the specification's own library."""

import base64
import re
import time
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from exporter.reports import parse_secrets, verify
from exporter.reports.signatures import MAX_SIGNATURES, TOLERANCE

NOW: Final = 1_772_366_400
KEY: Final = bytes(range(32))
OTHER: Final = bytes(range(32, 64))
BODY: Final = b'{"code": 1001}'
IDENTITY: Final = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"


def signature(key: bytes = KEY, body: bytes = BODY, identity: str = IDENTITY, timestamp: int = NOW) -> str:
    """`v1,...`, made by the reference."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    return Webhook(key).sign(msg_id=identity, timestamp=moment, data=body.decode())


def signed(**changes: str) -> dict[str, str]:
    """The headers of a request signed by the reference, changed; without those that are ''."""
    headers = {"webhook-id": IDENTITY, "webhook-timestamp": str(NOW), "webhook-signature": signature()}
    headers |= {f"webhook-{name}": value for name, value in changes.items()}
    return {name: value for name, value in headers.items() if value}


def test_a_signed_request_is_trusted() -> None:
    """What the reference signs with a known secret passes; with an unknown one it does not."""
    assert verify([KEY], signed(), BODY, NOW) is None
    assert verify([OTHER], signed(), BODY, NOW) == "signature_mismatch"


def test_the_specifications_own_example() -> None:
    """The example that libraries of the specification share."""
    (key,) = parse_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify([key], headers, b'{"test": 2432232314}', 1_614_265_330) is None


@pytest.mark.parametrize("body", [b"", b'{"code": 1002}', BODY + b" ", BODY[:-1]])
def test_an_altered_body_does_not_match(body: bytes) -> None:
    """Not a byte may differ from what was signed."""
    assert verify([KEY], signed(), body, NOW) == "signature_mismatch"


def test_an_altered_id_or_time_does_not_match() -> None:
    """They are signed with the body."""
    assert verify([KEY], signed(id="msg_other"), BODY, NOW) == "signature_mismatch"
    assert verify([KEY], signed(timestamp=str(NOW + 1)), BODY, NOW) == "signature_mismatch"
    assert verify([KEY], signed(timestamp=f"0{NOW}"), BODY, NOW) == "signature_mismatch"


@pytest.mark.parametrize("missing", [{"id": ""}, {"signature": ""}, {"id": "", "signature": "", "timestamp": ""}])
def test_unsigned_requests(missing: dict[str, str]) -> None:
    """Without an id or a signature there is nothing to verify."""
    assert verify([KEY], signed(**missing), BODY, NOW) == "signature_required"


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "now",
        "1772366400.0",
        "-1772366400",
        "+1772366400",
        " 1772366400",
        "1_772_366_400",
        "0x69A42C80",
        "".join(chr(ord("\N{ARABIC-INDIC DIGIT ZERO}") + int(digit)) for digit in str(NOW)),
        "\N{SUPERSCRIPT TWO}",
        "9" * 5000,
        str(NOW - TOLERANCE - 1),
        str(NOW + TOLERANCE + 1),
        "0",
    ],
)
def test_timestamps_out_of_range(timestamp: str) -> None:
    """Missing, no integer, or too far from the clock either way: whatever the signature, an old request is no news."""
    assert verify([KEY], signed(timestamp=timestamp), BODY, NOW) == "timestamp_out_of_range"
    assert verify([KEY], signed(timestamp=timestamp, signature="v1,x"), BODY, NOW) == "timestamp_out_of_range"


@pytest.mark.parametrize("distance", [-TOLERANCE, 0, TOLERANCE])
def test_timestamps_within_range(distance: int) -> None:
    """Clocks may differ by five minutes, both ways."""
    assert verify([KEY], signed(), BODY, NOW + distance) is None
    assert verify([KEY], signed(), BODY, NOW + distance + 0.25 * (-1 if distance > 0 else 1)) is None


@pytest.mark.parametrize(
    "signatures",
    [
        "v1",
        "v1,",
        "v1,x",
        "v1a," + base64.b64encode(bytes(64)).decode(),
        "v2," + signature().removeprefix("v1,"),
        signature().removeprefix("v1,"),
        "V1," + signature().removeprefix("v1,"),
        signature()[:-1],
        signature() + "=",
        signature().replace(",", ", "),
        "v1,\xff",
        " ",
    ],
)
def test_signatures_that_match_nothing(signatures: str) -> None:
    """Other versions, other keys and what is no signature are all the same."""
    assert verify([KEY], signed(signature=signatures), BODY, NOW) == "signature_mismatch"


def test_keys_are_rotated_on_either_side() -> None:
    """One of the signatures must be that of one of the secrets, so that either side may have two for a while."""
    both = f"v1a,AAAA {signature(OTHER)} {signature(KEY)}"
    assert verify([KEY], signed(signature=both), BODY, NOW) is None
    assert verify([OTHER, KEY], signed(), BODY, NOW) is None
    assert verify([KEY, OTHER], signed(), BODY, NOW) is None
    assert verify([b"k" * 24], signed(signature=both), BODY, NOW) == "signature_mismatch"
    assert verify([], signed(), BODY, NOW) == "signature_mismatch"


def test_only_so_many_signatures_are_tried() -> None:
    """The right one must be among the first of its version; those of others do not count."""
    wrong = signature(OTHER)
    assert verify([KEY], signed(signature=" ".join([wrong] * 9 + [signature()])), BODY, NOW) is None
    late = " ".join([wrong] * MAX_SIGNATURES + [signature()])
    assert verify([KEY], signed(signature=late), BODY, NOW) == "signature_mismatch"
    others = " ".join(["v1a,x"] * 50 + [signature()])
    assert verify([KEY], signed(signature=others), BODY, NOW) is None


def test_an_id_is_signed_as_the_bytes_it_was_sent_as() -> None:
    """Headers come as Latin-1 from below; UTF-8 in them is verified as UTF-8."""
    headers = signed(id="é".encode().decode("latin-1"), signature=signature(identity="é"))
    assert verify([KEY], headers, BODY, NOW) is None


@given(
    key=st.binary(min_size=24, max_size=64),
    identity=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
    timestamp=st.integers(0, 2**33),
    body=st.text().map(str.encode),
)
def test_whatever_the_reference_signs_is_trusted(key: bytes, identity: str, timestamp: int, body: bytes) -> None:
    """Any key, id, time and body; and with the first bit of any of the body's bytes changed it is not."""
    headers = signed(id=identity, timestamp=str(timestamp), signature=signature(key, body, identity, timestamp))
    assert verify([OTHER, key], headers, body, timestamp) is None
    if body:
        assert verify([OTHER, key], headers, bytes([body[0] ^ 1]) + body[1:], timestamp) == "signature_mismatch"


@given(
    identity=st.sampled_from(["", IDENTITY, "msg_other"]),
    offset=st.integers(-290, 290) | st.integers(-400, -310) | st.integers(310, 400) | st.sampled_from(["", "x", "0"]),
    made=st.lists(st.sampled_from([KEY, OTHER, b"", "v1a,AAAA", "v2,AAAA", "v1,AAAA"]), max_size=4),
)
def test_the_reference_agrees(identity: str, offset: int | str, made: list[bytes | str]) -> None:
    """A request is trusted here if and only if the library of the specification, with a clock of its own, trusts it."""
    now = time.time()
    timestamp = offset if isinstance(offset, str) else str(int(now) + offset)
    moment = int(timestamp) if timestamp.isdecimal() else NOW
    signatures = [one if isinstance(one, str) else signature(one or KEY[:24], timestamp=moment) for one in made]
    headers = signed(id=identity, timestamp=timestamp, signature=" ".join(signatures))
    try:
        Webhook(KEY).verify(BODY, headers)
        trusted = True
    except WebhookVerificationError:
        trusted = False
    assert (verify([KEY], headers, BODY, now) is None) == trusted


def secret(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


def test_a_secrets_file_has_a_secret_a_line() -> None:
    """Comments and blank lines are skipped, space around secrets is cut, and the order is kept."""
    text = f"# rotated in March\n\n  {secret(32)}  \r\n\t# the old one\n{secret(24)}\n{secret(64)}"
    assert parse_secrets(text) == (bytes(range(32)), bytes(range(24)), bytes(range(64)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no secret"),
        ("\n# none yet\n", "holds no secret"),
        ("hunter2", "line 1: a secret starts with whsec_"),
        (f"{secret(32)}\n\nWHSEC_{'A' * 44}", "line 3: a secret starts with whsec_"),
        (secret(32) + " # new", "line 1: what follows whsec_ is not base64"),
        ("whsec_hunter2!", "line 1: what follows whsec_ is not base64"),
        ("whsec_é", "line 1: what follows whsec_ is not base64"),
        ("whsec_" + "A" * 33, "line 1: what follows whsec_ is not base64"),
        ("whsec_", "line 1: the key has 0 bytes; it needs 24 to 64"),
        (f"# new\n{secret(23)}", "line 2: the key has 23 bytes; it needs 24 to 64"),
        (secret(65), "line 1: the key has 65 bytes; it needs 24 to 64"),
    ],
)
def test_a_faulty_secrets_file_is_refused(text: str, sentence: str) -> None:
    """Each fault has its sentence, which names the line and shows nothing of the secret."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_secrets(text)
