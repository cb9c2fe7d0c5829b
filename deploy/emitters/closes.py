"""Delivers opens and closes to websocket-exporter's webhook, from a thread: the service never waits for it."""

import json
import logging
import queue
import random
import re
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping

log = logging.getLogger("websocket.closes")


class Reporter:
    """Keeps up to `most` events until the exporter has taken them. Make it after a fork, not before.

    `url` is that of the webhook, `...?target=NAME` names the target; `headers` makes what each attempt has to carry.
    """

    def __init__(self, url: str, headers: Callable[[bytes], Mapping[str, str]] = lambda body: {}, most: int = 10_000):
        self.dropped = 0
        self._url, self._headers = url, headers
        self._waiting: queue.Queue[dict[str, object]] = queue.Queue(most)
        threading.Thread(target=self._run, name="websocket-closes", daemon=True).start()

    def report(self, code: int, initiator: str = "unknown", **fields: object) -> None:
        """Note a close. Never waits, never fails: what finds no room is dropped and counted."""
        self._note({"code": code, "initiator": initiator, **fields})

    def opened(self, **fields: object) -> None:
        """Note that a WebSocket was accepted, in the same way."""
        self._note({"event": "open", **fields})

    def _note(self, fields: dict[str, object]) -> None:
        known = {name: value for name, value in fields.items() if value is not None}
        try:
            self._waiting.put_nowait({"id": str(uuid.uuid4()), "time": int(time.time() * 1000), **known})
        except queue.Full:
            self.dropped += 1

    def close(self, timeout: float = 5.0) -> bool:
        """Wait until everything is delivered, for `timeout` seconds at most: the last thing that a service does."""
        with self._waiting.all_tasks_done:
            return self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, timeout)

    def _run(self) -> None:
        while True:
            events = [self._waiting.get()]
            while len(events) < 500 and not self._waiting.empty():
                events.append(self._waiting.get())
            self._deliver(json.dumps(events, default=str).encode())
            for _ in events:
                self._waiting.task_done()

    def _deliver(self, body: bytes) -> None:
        """Send the same again, ids and all, until the exporter has taken or refused it."""
        longest = 0.5
        while True:
            pause = 0.0
            try:
                status, retry_after, answer = self._send(body)
                if status < 500 and status not in (408, 429):
                    break
                pause = float(retry_after or 0)
            except Exception as error:  # no answer; whatever it is, this thread lives on
                log.warning("closes not delivered yet: %s", error)
            time.sleep(max(pause, random.uniform(0, longest)))
            longest = min(2 * longest, 30.0)
        if status >= 300 or re.search(r'"rejected": ?[1-9]', answer):
            log.error("closes refused: %s %s", status, answer)

    def _send(self, body: bytes) -> tuple[int, str | None, str]:
        """Status, Retry-After and body of the answer."""
        headers = {"Content-Type": "application/json", **self._headers(body)}
        try:
            response = urllib.request.urlopen(urllib.request.Request(self._url, body, headers), timeout=10)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, response.headers["Retry-After"], response.read(10_000).decode(errors="replace")
