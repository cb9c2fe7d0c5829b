"""HTTP conversations that become a WebSocket, sooner or later; each with every turn split at every byte."""

import pytest

from exporter.wire import http1
from exporter.wire.upgrade import MAX_EARLY, UpgradeRequest, UpgradeResponse, accept_value
from tests.wire.support import (
    KEY,
    SAMPLE_ACCEPT,
    SAMPLE_KEY,
    TEXT,
    Turn,
    accepts,
    asks,
    client,
    converse,
    frame,
    heard,
    server,
)


def both(*turns: Turn) -> Turn:
    """Turns of one side that come in one read."""
    return turns[0][0], b"".join(data for _, data in turns)


GET = client("GET /index.html HTTP/1.1\nHost: server.example.com")
OK = both(server("HTTP/1.1 200 OK\nContent-Length: 5"), server(b"Hello"))
REFUSED = both(server("HTTP/1.1 403 Forbidden\nContent-Length: 4"), server(b"Sad!"))
OPENED = ["asked for /chat", "upgraded"]
HELLO = frame(TEXT, b"Hello", key=KEY)
WELCOME = frame(TEXT, b"Welcome")


BEFORE_THE_UPGRADE: dict[str, list[Turn]] = {
    "nothing": [],
    "an empty line": [client(b"\r\n")],
    "a plain request": [GET, OK],
    "plain requests, kept alive": [GET, OK, GET, OK, GET, OK],
    "pipelined requests": [both(GET, GET, GET), both(OK, OK), OK],
    "HEAD, whose answer gives a length and has no body": [
        client("HEAD / HTTP/1.1"),
        server("HTTP/1.1 200 OK\nContent-Length: 5"),
    ],
    "304 with a length": [GET, server("HTTP/1.1 304 Not Modified\nContent-Length: 5")],
    "204": [GET, server("HTTP/1.1 204 No Content")],
    "an answer in chunks with trailers": [
        GET,
        both(
            server("HTTP/1.1 200 OK\nTransfer-Encoding: chunked"),
            server(b"3\r\nabc\r\n10;x=y\r\nHTTP/1.1 101 no!\r\n0\r\nDigest: z\r\n\r\n"),
        ),
    ],
    "POST with a length": [both(client("POST / HTTP/1.1\nContent-Length: 5"), client(b"GET /")), OK],
    "POST in chunks with trailers": [
        both(client("POST / HTTP/1.1\nTransfer-Encoding: chunked"), client(b"2\r\n{}\r\n0\r\nDigest: z\r\n\r\n")),
        OK,
    ],
    "PUT answered before its body has passed": [
        client("PUT / HTTP/1.1\nContent-Length: 4"),
        OK,
        client(b"body"),
    ],
    "100-continue": [
        client("POST / HTTP/1.1\nContent-Length: 4\nExpect: 100-continue"),
        server("HTTP/1.1 100 Continue"),
        client(b"body"),
        OK,
    ],
    "Expect answered by the final answer behind the body": [
        client("POST / HTTP/1.1\nContent-Length: 4\nExpect: 100-continue"),
        client(b"body"),
        OK,
    ],
    "Expect answered early, when the next request shows that the body has passed": [
        both(client("POST / HTTP/1.1\nContent-Length: 4\nExpect: 100-continue"), client(b"body"), GET),
        both(server("HTTP/1.1 417 No\nContent-Length: 0"), OK),
    ],
    "Expect answered while the body of the next request is under way": [
        both(client("POST / HTTP/1.1\nContent-Length: 4\nExpect: 100-continue"), client(b"body")),
        client("POST / HTTP/1.1\nContent-Length: 4"),
        OK,
        client(b"body"),
        OK,
    ],
    "early hints": [GET, both(server("HTTP/1.1 103 Early Hints\nLink: </x>"), OK)],
    "h2c declined": [
        client("GET / HTTP/1.1\nUpgrade: h2c\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABk"),
        OK,
    ],
    "POST that asks for h2c, and is declined": [
        both(client("POST / HTTP/1.1\nUpgrade: h2c\nContent-Length: 70000"), client(bytes(70000))),
        OK,
    ],
    "h2c declined, with requests behind it": [
        both(client("GET / HTTP/1.1\nUpgrade: h2c"), GET, client("POST / HTTP/1.1\nContent-Length: 2"), client(b"{}")),
        OK,
        both(OK, OK),
    ],
    "CONNECT refused": [
        client("CONNECT db.example:5432 HTTP/1.1\nHost: db.example:5432"),
        REFUSED,
    ],
}


@pytest.mark.parametrize("before", BEFORE_THE_UPGRADE.values(), ids=BEFORE_THE_UPGRADE)
def test_an_upgrade_is_found_behind_any_conversation(before: list[Turn]) -> None:
    """A connection may carry any number of requests before its opening handshake."""
    assert heard([*before, asks(), accepts()]) == OPENED


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_any_number_of_heads_in_one_read(size: int) -> None:
    """Hundreds of interim answers behind each other, however they are cut into reads, and then the 101."""
    interim = server("HTTP/1.1 100 Continue")[1] * 5000
    reads = [server(interim[start : start + size]) for start in range(0, len(interim), size)]
    assert converse([asks(), *reads, accepts()]).heard == OPENED
    assert converse([asks(), server(interim + accepts()[1])]).heard == OPENED


def test_what_follows_a_head_is_not_copied_for_each() -> None:
    """The cost of a read grows with its length, not with its square: seconds of it would stop the relay."""
    interim = server(b"HTTP/1.1 100\r\n\r\n" * 200_000)
    assert converse([asks(), interim, accepts()]).heard == OPENED


def test_ahead_is_the_rest_of_a_body() -> None:
    """Of heads nothing is ahead, of a body by length or of a chunk its rest; each side has its own."""
    talk = converse([client("POST / HTTP/1.1\nContent-Length: 70000"), client(bytes(1000))])
    assert (talk.http.ahead("client"), talk.http.ahead("server")) == (69_000, 0)
    talk = converse([GET, server("HTTP/1.1 200 OK\nTransfer-Encoding: chunked"), server(b"ff\r\nabc")])
    assert (talk.http.ahead("client"), talk.http.ahead("server")) == (0, 252)
    talk = converse([GET, server("HTTP/1.1 200 OK"), server(b"abc")])
    assert (talk.http.ahead("client"), talk.http.ahead("server")) == (0, http1.FOREVER)


def test_the_sample_key_has_the_sample_accept_value() -> None:
    """The example of RFC 6455 section 1.3."""
    assert accept_value(SAMPLE_KEY.encode()) == SAMPLE_ACCEPT.encode()


@pytest.mark.parametrize(
    "asking",
    [
        asks(Upgrade="WebSocket"),
        asks(Upgrade="h2c, websocket"),
        asks(Connection="keep-alive, upgrade"),
        asks(Host=None),
        asks(Origin="https://example.com", Cookie="a=b"),
        asks(Content_Length="0"),
        asks(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
    ],
)
def test_valid_opening_handshakes(asking: Turn) -> None:
    """GET, HTTP/1.1, both tokens, version 13 and a 16-byte key are what counts; the rest may vary."""
    assert heard([asking, accepts()]) == OPENED


@pytest.mark.parametrize(
    "answer",
    [
        accepts("HTTP/1.1 101"),
        accepts("HTTP/1.1 101 Web Socket Protocol Handshake"),
        accepts(Upgrade=None, Connection=None),
        accepts(Date="now", Sec_WebSocket_Protocol="chat"),
        both(server("HTTP/1.1 100 Continue"), server("HTTP/1.1 103 Early Hints"), accepts()),
    ],
)
def test_believable_answers(answer: Turn) -> None:
    """A 101 with the accept value of the key makes a WebSocket, also behind interim answers."""
    assert heard([asks(), answer]) == OPENED


def test_what_the_client_said_of_itself() -> None:
    """Host, path without its query, and user agent come with the request; query and fields do not show in its repr."""
    [request] = converse([asks("GET /chat?token=secret HTTP/1.1", User_Agent="b\xf6t/1"), accepts()]).requests
    shown = UpgradeRequest(SAMPLE_KEY.encode(), "server.example.com", "/chat", "b\\xf6t/1")
    assert repr(request) == repr(shown)
    assert request.query == b"token=secret"
    assert request.fields == {
        b"host": [b"server.example.com"],
        b"upgrade": [b"websocket"],
        b"connection": [b"Upgrade"],
        b"sec-websocket-key": [SAMPLE_KEY.encode()],
        b"sec-websocket-version": [b"13"],
        b"user-agent": [b"b\xf6t/1"],
    }


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/ws/1?token=secret", "/ws/1"),
        ("http://user:password@server.example.com/ws?x", "/ws"),
        ("http://server.example.com", "/"),
        ("*", "*"),
    ],
)
def test_the_path_of_a_request_target(target: str, path: str) -> None:
    """The path is what a match sees and a log line shows, in absolute form too: no query and no credentials."""
    assert converse([asks(f"GET {target} HTTP/1.1"), accepts()]).requests[0].path == path


def test_a_head_with_many_fields() -> None:
    """A head with more field lines than anybody sends is not looked at."""
    fields = {f"X_{number}": "1" for number in range(http1.MAX_FIELDS)}
    assert heard([asks(**fields), accepts()]) != OPENED


@pytest.mark.parametrize(
    ("fields", "response"),
    [
        ({}, UpgradeResponse(deflate=False, subprotocol="")),
        ({"Sec_WebSocket_Protocol": "graphql-ws"}, UpgradeResponse(deflate=False, subprotocol="graphql-ws")),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, UpgradeResponse(deflate=True, subprotocol="")),
        ({"Sec_WebSocket_Extensions": "foo, PerMessage-Deflate ; a=1"}, UpgradeResponse(deflate=True, subprotocol="")),
        ({"Sec_WebSocket_Extensions": "x-permessage-deflate"}, UpgradeResponse(deflate=False, subprotocol="")),
    ],
)
def test_what_the_service_agreed_to(fields: dict[str, str], response: UpgradeResponse) -> None:
    """The subprotocol, and whether messages may be compressed, are the answer's, whatever was offered."""
    asking = asks(Sec_WebSocket_Extensions="permessage-deflate", Sec_WebSocket_Protocol="chat, graphql-ws")
    assert converse([asking, accepts(**fields)]).response == response


REFUSALS: dict[str, Turn] = {
    "with a body by length": REFUSED,
    "without a body": server("HTTP/1.1 403 Forbidden\nContent-Length: 0"),
    "in chunks": both(
        server("HTTP/1.1 403 Forbidden\nTransfer-Encoding: chunked"), server(b"4\r\nSad!\r\n0\r\nA: b\r\n\r\n")
    ),
    "behind an interim answer": both(server("HTTP/1.1 102 Processing"), REFUSED),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_upgrade_leaves_http_behind(refusal: Turn) -> None:
    """Further requests may follow on the same connection, and a second opening handshake works."""
    again = ["asked for /chat", "rejected 403", "asked for /again", "upgraded"]
    second = asks("GET /again HTTP/1.1")
    assert heard([asks(), refusal, second, accepts()]) == again
    assert heard([asks(), refusal, GET, OK, second, accepts()]) == again


def test_a_second_upgrade_sent_before_the_first_was_refused() -> None:
    """It is asked for once the answer to the first has shown that HTTP goes on."""
    asking = both(asks(), asks("GET /again HTTP/1.1"))
    refused = ["asked for /chat", "rejected 403", "asked for /again"]
    assert heard([asking]) == refused[:1]
    assert heard([asking, REFUSED]) == refused
    assert heard([asking, REFUSED, accepts()]) == [*refused, "upgraded"]
    assert heard([asking, both(REFUSED, REFUSED)]) == [*refused, "rejected 403"]


def test_an_upgrade_pipelined_behind_requests_gets_its_own_answer() -> None:
    """Answers are paired in order, so the 101 is that of the upgrade."""
    assert heard([both(GET, GET, asks()), both(OK, OK, accepts())]) == OPENED


@pytest.mark.parametrize("tail", [b"", HELLO, HELLO + HELLO[:5], bytes(MAX_EARLY)])
def test_early_data_is_kept_until_the_answer(tail: bytes) -> None:
    """What a client sends behind its handshake is the beginning of its frames, once the right 101 has come."""
    turns = [both(asks(), client(tail)), accepts(), client(HELLO), server(WELCOME)]
    assert heard(turns) == OPENED
    assert converse(turns).frames == {"client": tail + HELLO, "server": WELCOME}


def test_frames_in_the_same_read_as_the_answer() -> None:
    """What follows the 101's head is the beginning of the server's frames."""
    turns = [asks(), both(accepts(), server(WELCOME)), server(WELCOME)]
    assert heard(turns) == OPENED
    assert converse(turns).frames == {"client": b"", "server": WELCOME * 2}


def test_early_data_behind_a_refusal_is_read_as_http() -> None:
    """Without a 101 there are no frames: what was sent early is the next request, or no request at all."""
    assert heard([both(asks(), GET), REFUSED, OK]) == ["asked for /chat", "rejected 403"]
    assert heard([both(asks(), client(HELLO)), REFUSED]) == ["asked for /chat", "rejected 403", "unparsed not_http"]


def test_too_much_early_data_is_not_kept() -> None:
    """Beyond its bound the connection is relayed unread, whatever the answer will be."""
    turns = [asks(), client(bytes(MAX_EARLY + 1)), accepts()]
    assert heard(turns) == ["asked for /chat", "unparsed early_data"]
