"""Standard Webhooks signatures: who sent a request, and that nothing of it was changed."""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final, Literal, get_args

SignatureFault = Literal["signature_required", "signature_mismatch", "timestamp_out_of_range"]
SIGNATURE_FAULTS: Final[tuple[SignatureFault, ...]] = get_args(SignatureFault)

TOLERANCE: Final = 300
"""Seconds by which webhook-timestamp may differ from the clock, both ways."""

MAX_SIGNATURES: Final = 10
"""Signatures of a request that are tried; a sender that rotates its keys has two."""

PREFIX: Final = "whsec_"
KEY_BYTES: Final = range(24, 64 + 1)
"""Bytes that a key may have, by the specification."""

_DIGITS: Final = 15


def verify(secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> SignatureFault | None:
    """Why a request is not to be trusted, or None.

    One of its signatures must be that of one of the secrets; `now` is the wall clock in Unix seconds, and the names
    in `headers` are in lower case. The time is judged first, which costs nothing.
    """
    identity = headers.get("webhook-id")
    signatures = headers.get("webhook-signature")
    if not identity or not signatures:
        return "signature_required"
    timestamp = headers.get("webhook-timestamp", "")
    if not _is_near(timestamp, now):
        return "timestamp_out_of_range"
    given = [text.encode() for text in islice(_of_version_1(signatures), MAX_SIGNATURES)]
    content = b"%s.%s.%s" % (identity.encode("latin-1", "replace"), timestamp.encode(), body)
    for secret in secrets if given else ():
        expected = base64.b64encode(hmac.digest(secret, content, "sha256"))
        if any(hmac.compare_digest(expected, one) for one in given):
            return None
    return "signature_mismatch"


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The keys of a secrets file: one a line, `whsec_` and base64. Blank lines and those with a # first are skipped.

    Raises ValueError with a sentence that names the line, and never the secret.
    """
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    secrets = tuple(_secret(number, line) for number, line in stripped if line and not line.startswith("#"))
    if not secrets:
        raise ValueError("holds no secret")
    return secrets


def _is_near(timestamp: str, now: float) -> bool:
    if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > _DIGITS:
        return False
    return abs(int(timestamp) - now) <= TOLERANCE


def _of_version_1(signatures: str) -> list[str]:
    versioned = (signature.partition(",") for signature in signatures.split(" "))
    return [signature for version, _, signature in versioned if version == "v1"]


def _secret(number: int, line: str) -> bytes:
    if not line.startswith(PREFIX):
        raise ValueError(f"line {number}: a secret starts with {PREFIX}")
    try:
        key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"line {number}: what follows {PREFIX} is not base64") from None
    if len(key) not in KEY_BYTES:
        raise ValueError(
            f"line {number}: the key has {len(key)} bytes; it needs {KEY_BYTES.start} to {KEY_BYTES.stop - 1}"
        )
    return key
