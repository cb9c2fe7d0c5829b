"""Signs what is reported, with the library of Standard Webhooks: Reporter(URL, headers=signed("whsec_..."))"""

import uuid
from collections.abc import Callable
from datetime import datetime

from standardwebhooks import Webhook


def signed(secret: str) -> Callable[[bytes], dict[str, str]]:
    """The headers of an attempt, by its body. Each attempt has a signature of its own: they expire in 5 minutes."""
    webhook = Webhook(secret)

    def headers(body: bytes) -> dict[str, str]:
        identity, now = f"msg_{uuid.uuid4()}", datetime.now().astimezone()
        signature = webhook.sign(identity, now, body.decode())
        timestamp = str(int(now.timestamp()))
        return {"webhook-id": identity, "webhook-timestamp": timestamp, "webhook-signature": signature}

    return headers
