"""HTTP/1.1 heads and bodies: what is plainly well-formed, and where a body ends (RFC 9112)."""

import pytest

from exporter.wire.http1 import (
    FOREVER,
    Ambiguous,
    Body,
    Fields,
    RequestHead,
    ResponseHead,
    first,
    parse_request,
    parse_response,
    request_body,
    response_body,
    tokens,
)
from tests.wire.support import splits

REQUESTS: list[tuple[bytes, RequestHead]] = [
    (b"GET / HTTP/1.1", RequestHead(b"GET", b"/", 1, {})),
    (b"GET /a?b=c HTTP/1.0", RequestHead(b"GET", b"/a?b=c", 0, {})),
    (b"M-SEARCH * HTTP/1.1\r\nHost: x", RequestHead(b"M-SEARCH", b"*", 1, {b"host": [b"x"]})),
    (b"CONNECT a.example:443 HTTP/1.1", RequestHead(b"CONNECT", b"a.example:443", 1, {})),
    (b"GET /\xc3\xbc HTTP/1.1\r\nA:\xff", RequestHead(b"GET", b"/\xc3\xbc", 1, {b"a": [b"\xff"]})),
    (
        b"GET / HTTP/1.1\r\nA:1\r\na: \t2 3\t \r\nB:\r\nc: ,",
        RequestHead(b"GET", b"/", 1, {b"a": [b"1", b"2 3"], b"b": [b""], b"c": [b","]}),
    ),
]

NO_REQUESTS = [
    b"",
    b"GET",
    b"GET /",
    b"GET / ",
    b"GET / HTTP/1.1 ",
    b"GET  / HTTP/1.1",
    b"GET / HTTP/2.0",
    b"GET / HTTP/1.2",
    b"GET / http/1.1",
    b" GET / HTTP/1.1",
    b"GET /a b HTTP/1.1",
    b"G(T / HTTP/1.1",
    b"GET /\t HTTP/1.1",
    b"GET /\x00 HTTP/1.1",
    b"GET / HTTP/1.1\n",
]

BAD_FIELDS = [
    pytest.param(b"Host", id="no colon"),
    pytest.param(b": x", id="no name"),
    pytest.param(b"Host : x", id="space before colon"),
    pytest.param(b" Host: x", id="leading space"),
    pytest.param(b"A: x\r\n folded", id="obs-fold"),
    pytest.param(b"A: x\r\n\tfolded", id="obs-fold with a tab"),
    pytest.param(b"A: x\nB: y", id="bare LF"),
    pytest.param(b"A: x\rB: y", id="bare CR"),
    pytest.param(b"A: x\x00", id="NUL"),
    pytest.param(b"A: \x1b[31m", id="ESC"),
    pytest.param(b"A: x\x7f", id="DEL"),
    pytest.param(b"A(b): x", id="name with a delimiter"),
    pytest.param(b"\xc3\xbc: x", id="name beyond ASCII"),
    pytest.param(b"A: x\r\n", id="a CRLF too many"),
]


@pytest.mark.parametrize(("head", "parsed"), REQUESTS)
def test_well_formed_requests(head: bytes, parsed: RequestHead) -> None:
    """Names are lower-cased, values of one name kept in order, without the blanks around them."""
    assert parse_request(head) == parsed


@pytest.mark.parametrize("head", NO_REQUESTS)
def test_no_request(head: bytes) -> None:
    """Whatever a strict server would refuse is not parsed."""
    assert parse_request(head) is None


@pytest.mark.parametrize(
    ("head", "parsed"),
    [
        (b"HTTP/1.1 200 OK", ResponseHead(200, {})),
        (b"HTTP/1.1 101", ResponseHead(101, {})),
        (b"HTTP/1.0 404 ", ResponseHead(404, {})),
        (b"HTTP/1.1 999 Was zum \xfc\xdf!\r\nDate: x", ResponseHead(999, {b"date": [b"x"]})),
    ],
)
def test_well_formed_responses(head: bytes, parsed: ResponseHead) -> None:
    """The reason phrase may be anything, empty, or missing with its space."""
    assert parse_response(head) == parsed


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 099 x",
        b"HTTP/1.1  200 OK",
        b"HTTP/2 200",
        b"ICY 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200\tOK",
    ],
)
def test_no_response(head: bytes) -> None:
    """A status line is a version, a status of three digits, and text."""
    assert parse_response(head) is None


@pytest.mark.parametrize("fields", BAD_FIELDS)
def test_one_bad_field_line_spoils_the_head(fields: bytes) -> None:
    """Where parsers are known to disagree (RFC 9112 section 5), this one declines."""
    assert parse_request(b"GET / HTTP/1.1\r\n" + fields) is None
    assert parse_response(b"HTTP/1.1 200 OK\r\n" + fields) is None


@pytest.mark.parametrize("tail", [b"", b"x", b"\x00"])
@pytest.mark.parametrize("blank", [b" ", b"\t", b" \t"])
def test_a_value_of_blanks_costs_linear_time(blank: bytes, tail: bytes) -> None:
    """A head full of blanks comes back at once; matched with backtracking, it would stop the relay for hours."""
    parsed = parse_request(b"GET / HTTP/1.1\r\na:" + blank * 32000 + tail)
    assert (parsed.fields if parsed else None) == (None if tail == b"\x00" else {b"a": [tail]})


@pytest.mark.parametrize(
    ("values", "members"),
    [
        ([], []),
        ([b""], []),
        ([b"websocket"], [b"websocket"]),
        ([b"keep-alive, Upgrade"], [b"keep-alive", b"upgrade"]),
        ([b",a ,\tB,,", b"c"], [b"a", b"b", b"c"]),
    ],
)
def test_tokens_of_a_list_field(values: list[bytes], members: list[bytes]) -> None:
    """Members over all lines of the field, lower-cased, empty ones left out (RFC 9110 section 5.6.1)."""
    assert tokens({b"upgrade": values} if values else {}, b"upgrade") == tuple(members)


def test_first_value_as_text() -> None:
    """Bytes beyond ASCII are escaped, so that no field can spoil a log line's encoding."""
    fields = {b"host": [b"a.example", b"b.example"], b"user-agent": [b"caf\xe9"]}
    assert first(fields, b"host") == "a.example"
    assert first(fields, b"user-agent") == "caf\\xe9"
    assert first(fields, b"origin") == ""


def passed(body: Body, pieces: list[bytes]) -> tuple[bytes, bool]:
    """What follows `body` in `pieces`, and whether it is complete."""
    rest = b""
    for piece in pieces:
        rest += piece if body.done else piece[body.skip(piece) :]
    return rest, body.done


BODIES: list[tuple[str, Fields, bytes]] = [
    ("nothing", {}, b""),
    ("length 0", {b"content-length": [b"0"]}, b""),
    ("length 5", {b"content-length": [b"5"]}, b"Hello"),
    ("length 05", {b"content-length": [b"05"]}, b"\r\n\r\n\0"),
    ("no chunk", {b"transfer-encoding": [b"chunked"]}, b"0\r\n\r\n"),
    ("one chunk", {b"transfer-encoding": [b"Chunked"]}, b"5\r\nHello\r\n0\r\n\r\n"),
    ("chunks of line ends", {b"transfer-encoding": [b"chunked"]}, b"2\r\n\r\n\r\n4\r\n0\r\n\r\r\n00\r\n\r\n"),
    ("hexadecimal sizes", {b"transfer-encoding": [b"chunked"]}, b"a\r\n0123456789\r\n0A\r\n0123456789\r\n0\r\n\r\n"),
    ("extensions", {b"transfer-encoding": [b"chunked"]}, b'1;a="b"\r\nx\r\n1 ;c\r\ny\r\n0;d\r\n\r\n'),
    ("trailers", {b"transfer-encoding": [b"chunked"]}, b"1\r\nx\r\n0\r\nDigest: abc\r\nExpires: never\r\n\r\n"),
]


@pytest.mark.parametrize(("fields", "wire"), [body[1:] for body in BODIES], ids=[body[0] for body in BODIES])
def test_a_body_ends_where_its_head_says(fields: Fields, wire: bytes) -> None:
    """Requests and responses alike, in any split; what follows is left alone."""
    for pieces in splits(wire + b"GET"):
        assert passed(request_body(RequestHead(b"POST", b"/", 1, fields)), pieces) == (b"GET", True)
        if fields:
            assert passed(response_body(ResponseHead(200, fields), b"GET"), pieces) == (b"GET", True)


@pytest.mark.parametrize(("fields", "wire"), [body[1:] for body in BODIES if body[2]])
def test_a_body_is_not_done_before_its_last_byte(fields: Fields, wire: bytes) -> None:
    """One byte short, it is still under way."""
    for pieces in splits(wire[:-1]):
        assert passed(request_body(RequestHead(b"POST", b"/", 1, fields)), pieces) == (b"", False)


def test_ahead_is_what_is_left_of_a_body_or_of_a_chunk() -> None:
    """Lines of the chunked coding are not part of it: any of them may be wrong."""
    body = Body(10)
    assert body.ahead == 10
    body.skip(b"GET GET", 4)
    assert body.ahead == 7
    body = Body(chunked=True)
    told = []
    for piece in (b"a\r", b"\n01", b"23456789", b"\r\n1;x\r\n", b"!\r\n0\r\n"):
        body.skip(piece)
        told.append(body.ahead)
    assert told == [0, 8, 0, 1, 0]
    assert Body(until_close=True).ahead == FOREVER


def test_a_body_is_skipped_from_where_it_begins() -> None:
    """What lies before it in a read is not looked at, and what follows is left alone."""
    data = b"POST / HTTP/1.1\r\n\r\nHelloGET"
    assert data[Body(5).skip(data, data.index(b"Hello")) :] == b"GET"
    data = b"0\r\n\r\n5\r\nHello\r\n0\r\n\r\nGET"
    assert data[Body(chunked=True).skip(data, 5) :] == b"GET"


@pytest.mark.parametrize(
    "wire",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1\nx",
        b"1\r\nx\r\n\n",
        b"1\r\nxy\r\n",
        b"1\r\nx\n0\r\n\r\n",
        b"1;\x00\r\n",
        b"1" * 16 + b"\r\n",
        b"0\r\nA: b\n\r\n",
        b"1;" + b"a" * 9000,
        b"0\r\na:" + b"a" * 9000,
    ],
)
def test_a_broken_chunked_coding_is_ambiguous(wire: bytes) -> None:
    """Bad sizes, bare LF, data without its CRLF, endless lines: nobody can say where that body ends."""
    for pieces in splits(wire):
        with pytest.raises(Ambiguous):
            passed(Body(chunked=True), pieces)


AMBIGUOUS: list[Fields] = [
    {b"content-length": [b"5", b"5"]},
    {b"content-length": [b"5, 5"]},
    {b"content-length": [b"+5"]},
    {b"content-length": [b"0x5"]},
    {b"content-length": [b""]},
    {b"content-length": [b"5 5"]},
    {b"content-length": [b"9" * 19]},
    {b"content-length": [b"5"], b"transfer-encoding": [b"chunked"]},
    {b"transfer-encoding": [b"gzip, chunked"]},
    {b"transfer-encoding": [b"chunked", b"chunked"]},
    {b"transfer-encoding": [b"identity"]},
    {b"transfer-encoding": [b"xchunked"]},
    {b"transfer-encoding": [b""]},
]


@pytest.mark.parametrize("fields", AMBIGUOUS)
def test_contradicting_lengths_are_ambiguous(fields: Fields) -> None:
    """The stuff of request smuggling (RFC 9112 section 6.3) gets no guess."""
    with pytest.raises(Ambiguous):
        request_body(RequestHead(b"POST", b"/", 1, fields))
    with pytest.raises(Ambiguous):
        response_body(ResponseHead(200, fields), b"GET")


def test_http_1_0_knows_no_chunked_requests() -> None:
    """A Transfer-Encoding there means faulty framing (RFC 9112 section 6.1)."""
    with pytest.raises(Ambiguous):
        request_body(RequestHead(b"POST", b"/", 0, {b"transfer-encoding": [b"chunked"]}))


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"HEAD", 404)])
def test_answers_that_never_have_a_body(method: bytes, status: int) -> None:
    """Whatever length their heads give (RFC 9112 section 6.3)."""
    for fields in ({}, {b"content-length": [b"5"]}, {b"transfer-encoding": [b"chunked"]}, *AMBIGUOUS):
        assert response_body(ResponseHead(status, fields), method).done


def test_a_response_without_a_length_lasts_until_the_connection_ends() -> None:
    """All that follows is its body."""
    body = response_body(ResponseHead(200, {}), b"GET")
    assert body.until_close
    assert passed(body, [b"anything", b"HTTP/1.1 200 OK\r\n\r\n"]) == (b"", False)
