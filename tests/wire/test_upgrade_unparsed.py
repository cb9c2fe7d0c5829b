"""HTTP conversations that are no WebSocket, or no HTTP: each left unparsed for its reason, however it is split."""

import pytest

from exporter.wire.http1 import MAX_HEAD
from exporter.wire.upgrade import MAX_PIPELINED
from tests.wire.support import SAMPLE_ACCEPT, SAMPLE_KEY, Turn, accepts, asks, client, converse, head, heard, server

GET = client("GET / HTTP/1.1\nHost: server.example.com")
OK = server("HTTP/1.1 200 OK\nContent-Length: 0")
INVALID = ["wrongly asked for /chat"]


def behind(turn: Turn, data: bytes) -> Turn:
    """A turn with more bytes of the same side right behind it."""
    return turn[0], turn[1] + data


NO_VALID_HANDSHAKE: dict[str, Turn] = {
    "HTTP/1.0": asks("GET /chat HTTP/1.0"),
    "version 12": asks(Sec_WebSocket_Version="12"),
    "several versions": asks(Sec_WebSocket_Version="13, 12"),
    "no version": asks(Sec_WebSocket_Version=None),
    "no key": asks(Sec_WebSocket_Key=None),
    "an empty key": asks(Sec_WebSocket_Key=""),
    "a key of 15 bytes": asks(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAA"),
    "a key of 17 bytes": asks(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAAA="),
    "a key without padding": asks(Sec_WebSocket_Key=SAMPLE_KEY[:-1]),
    "a key that is no base64": asks(Sec_WebSocket_Key="d?hlIHNhbXBsZSBub25jZQ=="),
    "two keys": asks(Sec_WebSocket_Key=f"{SAMPLE_KEY}\r\nSec-WebSocket-Key: {SAMPLE_KEY}"),
    "no Connection": asks(Connection=None),
    "another Connection": asks(Connection="keep-alive, upgraded"),
    "a body by length": behind(asks(Content_Length="5"), b"Hello"),
    "a body in chunks": behind(asks(Transfer_Encoding="chunked"), b"0\r\n\r\n"),
}


@pytest.mark.parametrize("asking", NO_VALID_HANDSHAKE.values(), ids=NO_VALID_HANDSHAKE)
def test_an_invalid_handshake_is_never_a_websocket(asking: Turn) -> None:
    """Even a right 101 does not make one of it (RFC 6455 section 4.1): that is how WebSocket smuggling works."""
    assert heard([asking, accepts()]) == [*INVALID, "rejected 101", "unparsed unexpected_101"]


@pytest.mark.parametrize("asking", NO_VALID_HANDSHAKE.values(), ids=NO_VALID_HANDSHAKE)
def test_an_invalid_handshake_may_be_refused_and_corrected(asking: Turn) -> None:
    """It was an attempt, HTTP goes on behind its answer, and the next attempt can succeed."""
    upgrade_required = server("HTTP/1.1 426 Upgrade Required\nContent-Length: 0")
    assert heard([asking, upgrade_required, asks(), accepts()]) == [
        *INVALID,
        "rejected 426",
        "asked for /chat",
        "upgraded",
    ]


ANSWERS_101: dict[str, tuple[list[Turn], list[str]]] = {
    "unasked": ([], ["unparsed unexpected_101"]),
    "to a plain GET": ([GET], ["unparsed unexpected_101"]),
    "to a POST": ([client("POST /chat HTTP/1.1\nContent-Length: 0")], ["unparsed unexpected_101"]),
    "to a POST that asked": ([asks("POST /chat HTTP/1.1")], ["unparsed other_upgrade"]),
    "to an upgrade to h2c": (
        [client("GET / HTTP/1.1\nUpgrade: h2c\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABk")],
        ["unparsed other_upgrade"],
    ),
    "to CONNECT": ([client("CONNECT a.example:1 HTTP/1.1")], ["unparsed other_upgrade"]),
    "to the request before the handshake": ([GET, asks()], ["asked for /chat", "unparsed unexpected_101"]),
    "once more than asked": ([GET, OK], ["unparsed unexpected_101"]),
}


@pytest.mark.parametrize(("before", "told"), ANSWERS_101.values(), ids=ANSWERS_101)
def test_a_101_that_answers_no_handshake(before: list[Turn], told: list[str]) -> None:
    """It switches to something, but not to a WebSocket that was asked for."""
    assert heard([*before, accepts()]) == told


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=",
        SAMPLE_ACCEPT.lower(),
        SAMPLE_KEY,
        f"{SAMPLE_ACCEPT}, {SAMPLE_ACCEPT}",
        f"{SAMPLE_ACCEPT}\r\nSec-WebSocket-Accept: {SAMPLE_ACCEPT}",
    ],
)
def test_a_wrong_accept_value_is_no_websocket(accept: str | None) -> None:
    """A client must fail such a connection (RFC 6455 section 4.1): its bytes are not frames."""
    turns = [asks(), accepts(Sec_WebSocket_Accept=accept), client(b"\x81\x80abcd")]
    assert heard(turns) == ["asked for /chat", "rejected 101", "unparsed accept_mismatch"]


TLS_HELLO = bytes.fromhex("16030100f5010000f10303") + bytes(range(200))
KEXINIT = bytes.fromhex("0000059c0a14") + bytes(40)

NO_HTTP_1: dict[str, tuple[bytes, str]] = {
    "TLS": (TLS_HELLO, "tls"),
    "TLS in a single large read": (TLS_HELLO + bytes(70000), "tls"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), "http2"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n" + KEXINIT, "not_http"),
    "PROXY protocol 2": (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12), "not_http"),
    "zeros": (bytes(100), "not_http"),
    "zeros in a single large read": (bytes(70000), "not_http"),
    "a lone line": (b"HELO\r\n\r\n", "not_http"),
    "a method without end": (b"A" * 25, "not_http"),
    "frames": (b"\x81\x85abcdefghi", "not_http"),
    "text beyond ASCII": ("Grüße / HTTP/1.1\r\n\r\n".encode(), "not_http"),
    "JSON": (b'{"a": 1}\n', "not_http"),
    "bytes like TLS": (b"\x16\x04GET / HTTP/1.1\r\n\r\n", "not_http"),
}


@pytest.mark.parametrize(("data", "reason"), NO_HTTP_1.values(), ids=NO_HTTP_1)
def test_what_is_no_http_1(data: bytes, reason: str) -> None:
    """Told from its first bytes, in the beginning or where the next request should begin."""
    assert heard([client(data)]) == [f"unparsed {reason}"]
    assert heard([GET, OK, client(data)]) == [f"unparsed {reason}"]


BAD_REQUESTS = {
    "no version": head("GET /chat"),
    "HTTP/3": head("GET / HTTP/3.0"),
    "SSH with a space": head("SSH-2.0-OpenSSH_9.2p1 Debian-2"),
    "PROXY protocol 1": head("PROXY TCP4 192.0.2.1 192.0.2.2 1 2", "GET / HTTP/1.1"),
    "Content-Length and Transfer-Encoding": head("POST / HTTP/1.1", "Content-Length: 3", "Transfer-Encoding: chunked"),
    "two Content-Lengths": head("POST / HTTP/1.1", "Content-Length: 3", "Content-Length: 4"),
    "two equal Content-Lengths": head("POST / HTTP/1.1", "Content-Length: 3", "Content-Length: 3"),
    "a Content-Length that is no number": head("POST / HTTP/1.1", "Content-Length: 3x"),
    "another coding": head("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
    "chunks in HTTP/1.0": head("POST / HTTP/1.0", "Transfer-Encoding: chunked"),
    "obs-fold": head("GET / HTTP/1.1", "A: b", " c"),
    "space before a colon": head("GET / HTTP/1.1", "Upgrade : websocket"),
    "a bare LF": head("GET / HTTP/1.1\nUpgrade: websocket"),
    "NUL": head("GET / HTTP/1.1", "A: \0"),
    "a broken chunk": head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"5\r\nHello!!\r\n",
}


@pytest.mark.parametrize("data", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_requests_on_which_parsers_disagree(data: bytes) -> None:
    """No guess is made about what the service takes them for, although an upgrade may follow."""
    assert heard([client(data), asks()]) == ["unparsed bad_request_head"]


BAD_RESPONSES = {
    "SSH": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "HTTP/2 settings": b"\0\0\x12\x04\0\0\0\0\0" + bytes(18),
    "zeros in a single large read": bytes(70000),
    "HTTP/0.9": b"<html>Hello</html>",
    "HTTP/2": head("HTTP/2 200"),
    "obs-fold": head("HTTP/1.1 200 OK", "A: b", " c"),
    "two Content-Lengths": head("HTTP/1.1 200 OK", "Content-Length: 3", "Content-Length: 4"),
    "another coding": head("HTTP/1.1 200 OK", "Transfer-Encoding: gzip"),
    "a broken chunk": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"HTTP\r\n",
    "a body without end": head("HTTP/1.1 200 OK", "Content-Length: 0") + b"Hello",
    "two answers": OK[1] + OK[1],
}


@pytest.mark.parametrize("data", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_responses_that_cannot_be_paired(data: bytes) -> None:
    """Once it is unclear where an answer ends, or to what it belongs, later ones are not believed."""
    assert heard([GET, server(data), asks(), accepts()]) == ["unparsed bad_response_head"]


def test_an_answer_to_nothing() -> None:
    """A service that answers before it was asked (408 on an idle connection) ends what is understood."""
    assert heard([server("HTTP/1.1 408 Request Timeout\nContent-Length: 0")]) == ["unparsed bad_response_head"]


def test_connect_is_a_tunnel_once_it_is_granted() -> None:
    """What a granted CONNECT carries is none of our business, whatever status in 2xx grants it."""
    asking = behind(client("CONNECT db.example:5432 HTTP/1.1\nHost: db.example:5432"), TLS_HELLO)
    for status in ("200 Connection established", "204 Fine"):
        assert heard([asking, server(f"HTTP/1.1 {status}"), client(b"\0\1")]) == ["unparsed connect"]


def test_an_answer_before_an_expected_body() -> None:
    """After it the client may send the body or leave it out (RFC 9110 section 10.1.1): there is no telling."""
    asking = client("POST / HTTP/1.1\nContent-Length: 70\nExpect: 100-continue")
    assert heard([asking, server("HTTP/1.1 417 No\nContent-Length: 0"), asks()]) == ["unparsed early_answer"]


def test_a_response_without_length_hides_what_follows() -> None:
    """Its body lasts until the connection ends, also where it looks like the 101 that was asked for."""
    assert heard([GET, server("HTTP/1.1 200 OK"), asks(), accepts()]) == ["asked for /chat"]


@pytest.mark.parametrize("more", [-4, -3, -2, -1, 0])
def test_a_head_up_to_its_bound_is_read(more: int) -> None:
    """The bound is that of the head, without the empty line that ends it."""
    begin = asks()[1][:-4] + b"\r\nCookie: "
    asking = begin + b"x" * (MAX_HEAD + more - len(begin)) + b"\r\n\r\n"
    assert len(asking) == MAX_HEAD + more + 4
    assert heard([client(asking), accepts()]) == ["asked for /chat", "upgraded"]


def test_longer_heads_are_left_unread() -> None:
    """A head of one byte more, from either side, complete or not."""
    for complete in (b"", b"\r\n\r\n"):
        asking, answer = (line + b"x" * (MAX_HEAD + 1 - len(line)) for line in (b"GET / HTTP/1.1\r\na: ", OK[1][:-4]))
        assert heard([client(asking + (complete or b"xxx"))]) == ["unparsed head_too_large"]
        assert heard([GET, server(answer + (complete or b"xxx"))]) == ["unparsed head_too_large"]


def test_requests_beyond_the_bound_are_not_remembered() -> None:
    """Answers are paired with at most so many requests; an answered one makes room."""
    full = [GET] * MAX_PIPELINED
    assert converse(full).heard == []
    assert converse([*full, GET]).heard == ["unparsed too_many_requests"]
    assert converse([client(GET[1] * MAX_PIPELINED), OK, GET]).heard == []


INCOMPLETE: dict[str, list[Turn]] = {
    "nothing": [],
    "an empty line": [client(b"\r\n")],
    "a request": [GET],
    "an upgrade and early data": [asks(), client(b"GET / HT")],
    "a request body": [client("POST / HTTP/1.1\nContent-Length: 9"), client(b"GET")],
    "half a response": [GET, server(b"HTTP/1.1 200")],
}


@pytest.mark.parametrize("turns", INCOMPLETE.values(), ids=INCOMPLETE)
def test_no_request_head_is_incomplete(turns: list[Turn]) -> None:
    """Early data, bodies and answers are not request heads under way."""
    heard(turns)
    assert not converse(turns).http.incomplete


@pytest.mark.parametrize("begin", [b"G", b"\x16", b"GET / HTTP/1.1\r\n", GET[1][:-1], GET[1].replace(b"\r", b"")])
def test_a_request_head_without_its_end_is_incomplete(begin: bytes) -> None:
    """Nothing is decided about it yet; a head with bare LF never ends."""
    assert heard([GET, OK, client(begin)]) == []
    assert converse([GET, OK, client(begin)]).http.incomplete
