"""Every form in which events may be reported: JSON, lines, CloudEvents, and the events of platforms."""

import contextlib
import json
import time
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.support.loops import conversation
from tests.support.reporting import (
    AWS,
    CLOSES,
    CLOUDEVENT,
    CLOUDEVENTS,
    DURATION,
    EVENTS,
    HANDSHAKES,
    NDJSON,
    OPENAPI,
    Desk,
    closing,
    counts,
    growth,
    ndjson,
    outcome,
    post,
)
from tests.support.scraping import fetch
from tests.web.support import connected


@pytest.mark.parametrize("kind", ["array", "lines", "CRLF lines"])
@conversation
async def test_many_events(desk: Desk, kind: str) -> None:
    """A thousand events in one request are counted one by one, in whatever form they come."""
    events = [closing(1000 + number % 4, duration=number % 7, initiator="client") for number in range(1000)]
    before = await desk.scrape()
    match kind:
        case "array":
            answer = await desk.report(events)
        case "lines":
            answer = await desk.report(ndjson(events), kind=NDJSON)
        case _:
            answer = await desk.report(ndjson(events).rstrip().replace(b"\n", b"\r\n"), kind=NDJSON)
    assert (answer.status, outcome(answer)) == (202, (1000, 0, 0))
    after = await desk.scrape()
    assert growth(before, after, CLOSES, "code") == {("1000",): 250, ("1001",): 250, ("1002",): 250, ("1003",): 250}
    assert growth(before, after, f"{DURATION}_count") == {(): 1000}
    assert growth(before, after, f"{DURATION}_sum") == {(): sum(number % 7 for number in range(1000))}


@pytest.mark.parametrize(
    "sent",
    [
        post([]),
        post(b"", kind=NDJSON),
        post(b"\n\r\n \n", kind=NDJSON),
        post([], kind=CLOUDEVENTS),
    ],
    ids=["array", "lines", "empty lines", "CloudEvents"],
)
@conversation
async def test_an_empty_batch(desk: Desk, sent: bytes) -> None:
    """Nothing to count is no error."""
    before = await desk.scrape()
    answer = await desk.ask(sent)
    assert (answer.status, json.loads(answer.body)) == (
        202,
        {"accepted": 0, "duplicate": 0, "rejected": 0, "items": []},
    )
    after = await desk.scrape()
    assert counts(after) == counts(before)
    assert growth(before, after, EVENTS, "result", "reason") == {}


def cloudevent(data: dict[str, Any], **attributes: Any) -> CloudEvent:
    """As the CloudEvents library makes it."""
    own = {"source": "/gateway", "type": "websocket.closed", "datacontenttype": "application/json"}
    return CloudEvent(attributes=own | attributes, data=data)


def structured(event: CloudEvent) -> bytes:
    body: bytes = to_structured_event(event).body
    return body


class TestCloudEvents:
    @pytest.mark.parametrize("mode", ["structured", "binary", "batched"])
    @conversation
    async def test_each_mode(self, desk: Desk, mode: str) -> None:
        """A CloudEvent's data is the event, its id and source are the event's own: sent again it is a duplicate."""
        event = cloudevent({"code": 1012, "initiator": "server", "duration": 3}, id=f"first/{mode}")
        before = await desk.scrape()
        for expected in ((1, 0, 0), (0, 1, 0)):
            if mode == "batched":
                answer = await desk.report(b"[" + structured(event) + b"]", kind=CLOUDEVENTS)
            else:
                message = to_structured_event(event) if mode == "structured" else to_binary_event(event)
                headers = [f"{name}: {value}" for name, value in message.headers.items() if name != "content-type"]
                answer = await desk.report(message.body, *headers, kind=message.headers["content-type"])
            assert (answer.status, outcome(answer)) == (202, expected)
        after = await desk.scrape()
        assert growth(before, after, CLOSES, "code", "initiator") == {("1012", "server"): 1}
        assert growth(before, after, f"{DURATION}_sum") == {(): 3}

    @conversation
    async def test_whose_id(self, desk: Desk) -> None:
        """An id is an event's own within its source: the same id of two sources is two events, in whatever mode."""
        first, second = (cloudevent({"code": 1000}, id="7", source=source) for source in ("/a", "/b"))
        assert outcome(await desk.report(structured(first), kind=CLOUDEVENT)) == (
            1,
            0,
            0,
        )
        batch = b"[%b,%b]" % (structured(first), structured(second))
        assert outcome(await desk.report(batch, kind=CLOUDEVENTS)) == (1, 1, 0)
        assert outcome(await desk.report(closing(id="7", source="/b"))) == (0, 1, 0)
        assert outcome(await desk.report(closing(id="7"))) == (1, 0, 0)

    @conversation
    async def test_attributes_beyond_the_known(self, desk: Desk) -> None:
        """Optional and extension attributes are no fault: other software on the way may add them."""
        event = cloudevent(
            {"code": 1000}, id="8", subject="s", dataschema="http://schema.test/1", traceparent="00-1-2-01"
        )
        assert outcome(await desk.report(structured(event), kind=CLOUDEVENT)) == (
            1,
            0,
            0,
        )

    @conversation
    async def test_an_open(self, strict_desk: Desk) -> None:
        """Opens come as CloudEvents too, and `?target=` names their target."""
        event = cloudevent({"event": "open"}, id="opened")
        before = await strict_desk.scrape()
        answer = await strict_desk.report(structured(event), kind=CLOUDEVENT, target="rooms")
        assert (answer.status, outcome(answer)) == (200, (1, 0, 0))
        assert growth(before, await strict_desk.scrape(), HANDSHAKES, "target", "outcome") == {("rooms", "accepted"): 1}


def disconnected(code: int, connection: str, lived: float) -> dict[str, Any]:
    """What API Gateway passes to the function behind `$disconnect`, with this moment's times."""
    now = int(time.time() * 1000)
    return {
        "headers": {
            "Host": "8vvlfzg9d1.execute-api.eu-central-1.amazonaws.com",
            "x-api-key": "",
            "X-Forwarded-For": "",
            "x-restapi": "",
        },
        "multiValueHeaders": {
            "Host": ["8vvlfzg9d1.execute-api.eu-central-1.amazonaws.com"],
            "x-api-key": [""],
            "X-Forwarded-For": [""],
            "x-restapi": [""],
        },
        "requestContext": {
            "routeKey": "$disconnect",
            "disconnectStatusCode": code,
            "eventType": "DISCONNECT",
            "extendedRequestId": "fj5MWH5eliAFc4A=",
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now / 1000)),
            "messageDirection": "IN",
            "disconnectReason": "Going away",
            "stage": "production",
            "connectedAt": now - int(lived * 1000),
            "requestTimeEpoch": now,
            "identity": {"userAgent": "Mozilla/5.0", "sourceIp": "203.0.113.7"},
            "requestId": f"request-of-{connection}",
            "domainName": "8vvlfzg9d1.execute-api.eu-central-1.amazonaws.com",
            "connectionId": connection,
            "apiId": "8vvlfzg9d1",
        },
        "isBase64Encoded": False,
    }


@conversation
async def test_an_aws_disconnect(desk: Desk, strict_desk: Desk) -> None:
    """API Gateway's code and the time between its two times are counted; the connection's id makes it once."""
    before = await desk.scrape()
    event = disconnected(1001, "fj5MUcV-liACFkg=", lived=61.5)
    assert outcome(await desk.report(event, path=AWS)) == (1, 0, 0)
    assert outcome(await desk.report(event, path=AWS)) == (0, 1, 0)
    assert outcome(await desk.report(disconnected(1006, "other=", lived=7.0), path=AWS)) == (1, 0, 0)
    after = await desk.scrape()
    assert growth(before, after, CLOSES, "code") == {("1001",): 1, ("1006",): 1}
    assert growth(before, after, f"{DURATION}_sum") == {(): 68.5}
    assert outcome(await strict_desk.report(event, path=AWS, target="rooms")) == (1, 0, 0)
    assert (await strict_desk.scrape()).value(CLOSES, target="rooms", code="1001") == 1


@conversation
async def test_other_pages(desk: Desk) -> None:
    """Beside the reports there are their schema, and health."""
    status, text = await fetch(desk.address, OPENAPI)
    assert status == 200
    document = json.loads(text)
    assert document["openapi"].startswith("3.")
    assert {"/api/v1/closes", "/api/v1/closes/aws-apigateway"} <= document["paths"].keys()
    assert await fetch(desk.address, "/-/healthy") == (200, "OK")


@conversation
async def test_a_sender_that_half_closes(desk: Desk) -> None:
    """A FIN behind the report does not cost the sender its answer."""
    async with connected(desk.address) as client:
        client.writer.write(post(closing(1000)))
        client.writer.write_eof()
        assert outcome(await client.answer()) == (1, 0, 0)


@conversation
async def test_one_connection_for_many_reports(desk: Desk) -> None:
    """A connection is kept for the next report; what was sent ahead is not lost, or not acknowledged."""
    before = await desk.scrape()
    acknowledged = 0
    async with connected(desk.address) as client:
        for _ in range(50):
            await client.send(post(closing(1000)))
            assert outcome(await client.answer()) == (1, 0, 0)
            acknowledged += 1
    async with connected(desk.address) as client:
        await client.send(post(closing(1000)) * 10)
        with contextlib.suppress(EOFError, ConnectionError):
            while acknowledged < 60:
                acknowledged += outcome(await client.answer())[0]
    assert growth(before, await desk.scrape(), CLOSES, "code") == {("1000",): acknowledged}
