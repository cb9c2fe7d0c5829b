"""Where does a frame begin? Finding back into one direction of a WebSocket whose bytes were not all seen.

A segment often begins with a frame. Each segment's beginning is tried as one, and believed once it and the frames that
follow it cannot be chance: a header's first byte and mask are worth 6 bits, a longer length's form 7 or 39 more, and a
frame that ends exactly with a segment 7, or 16 with a longer length. A Close frame that fills its segment is worth 16
to 21, and is believed too, for the sake of what it says; whoever believes it must be ready to be told otherwise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

from exporter.closecodes import legal_on_wire
from exporter.events import Side
from exporter.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL_BIT,
    FIN,
    LENGTH,
    LENGTH_16,
    LONGEST_CONTROL,
    MASK,
    MASKING_KEY,
    OPCODE,
    PONG,
    RSV,
    RSV1,
    Chunk,
    parse_close,
    unmask,
)
from exporter.wire.sizes import SHORTEST_EXTENDED

ENOUGH: Final = 24
"""Bits of evidence that are believed: chance gives them once in 17 million segments."""

_HEADER: Final = 6
_LENGTH_16: Final = 7
_LENGTH_64: Final = 39
_END: Final = 7
_END_16: Final = 16

MOST_CANDIDATES: Final = 8
"""Beginnings that are followed at a time."""

LONGEST: Final = 1 << 32
"""Bytes of payload; a header that declares more is not believed here."""

_LARGE: Final[Mapping[Side, bytes]] = {"client": b"\xff\0\0\0\0", "server": b"\x7f\0\0\0\0"}
"""Behind its first byte, the header of a frame of 64 KiB to 4 GiB: so much is no chance, wherever it is found."""

_BEGINNINGS: Final = (FIN | 1, FIN | BINARY, FIN | RSV1 | 1, FIN | RSV1 | BINARY)
"""First bytes of a message that is not fragmented."""


class Header(NamedTuple):
    """A frame's header: its first byte, the bytes of header and payload."""

    first: int
    size: int
    length: int


def header_at(data: Chunk, at: int, side: Side) -> Header | None:
    """The header that begins at `at`, if `side` may send it (RFC 6455 section 5.2); None if it may not.

    Raises:
        IndexError: there is less than a header.
    """
    first, second = data[at], data[at + 1]
    opcode, length = first & OPCODE, second & LENGTH
    rsv = first & RSV
    if bool(second & MASK) != (side == "client") or BINARY < opcode < CLOSE or opcode > PONG:
        return None
    if rsv and not (rsv == RSV1 and CONTINUATION < opcode <= BINARY):
        return None
    if opcode & CONTROL_BIT and (not first & FIN or length > LONGEST_CONTROL):
        return None
    extended = 0 if length < LENGTH_16 else 2 if length == LENGTH_16 else 8
    size = 2 + extended + (MASKING_KEY if side == "client" else 0)
    if at + size > len(data):
        raise IndexError
    if extended:
        length = int.from_bytes(data[at + 2 : at + 2 + extended])
        if not (SHORTEST_EXTENDED if extended == 2 else 1 << 16) <= length <= LONGEST:
            return None
    return Header(first, size, length)


def is_close(data: Chunk, side: Side) -> bool:
    """Whether `data` is exactly one Close frame that makes sense, as `side` sends it."""
    try:
        header = header_at(data, 0, side)
    except IndexError:
        return False
    if header is None or header.first != FIN | CLOSE or header.size + header.length != len(data):
        return False
    payload = bytes(data[header.size :])
    if side == "client":
        payload = unmask(payload, bytes(data[header.size - MASKING_KEY : header.size])) if payload else payload
    close = parse_close(payload)
    return not close.malformed and (close.code is None or legal_on_wire(close.code))


@dataclass(slots=True)
class _Candidate:
    """Frames believed to follow each other; the next header is `ahead` bytes behind the end of what was seen."""

    ahead: int = 0
    frames: int = 0
    messages: int = 0  # of these frames, those that are no continuation
    in_message: bool | None = None  # not known before the first data frame
    evidence: int = 0  # bits
    last: int = 0  # bits more if the last frame ends with a segment
    part: bytes = b""  # of a header

    def frame(self, header: Header) -> bool:
        """Take the next frame. Returns whether it may follow the others (section 5.4)."""
        opcode = header.first & OPCODE
        if not opcode & CONTROL_BIT:
            if self.in_message is not None and self.in_message != (opcode == CONTINUATION):
                return False
            self.in_message = not header.first & FIN
        self.frames += 1
        self.evidence += _HEADER
        self.last = _END
        if header.length >= SHORTEST_EXTENDED:
            self.evidence += _LENGTH_16 if header.length < 1 << 16 else _LENGTH_64
            self.last = _END_16
        self.messages += opcode != CONTINUATION
        return True


class Found(NamedTuple):
    """The next frame begins with `data` or, where that is empty, `skip` bytes behind the segment."""

    skip: int
    data: Chunk


class Search:
    """Follows possible beginnings of frames through the segments of one side. `began` is whether there were any.

    `counted` is for whoever counts what is searched for.
    """

    __slots__ = ("_candidates", "_side", "began", "counted")

    def __init__(self, side: Side) -> None:
        self.began = False
        self.counted = False
        self._side: Side = side
        self._candidates: list[_Candidate] = []

    def gap(self) -> None:
        """Bytes are missing: what was believed of what comes next is void."""
        self.began = True
        self._candidates.clear()

    def segment(self, data: Chunk) -> Found | None:
        """Take the next segment. Returns where a frame begins for sure, the first one that this segment can tell of."""
        self.began = True
        if is_close(data, self._side):
            return Found(0, data)
        found = self._follow(data)
        if found is not None:
            return found
        for begin in chain((0,), self._inside(data)):
            candidate = _Candidate()
            if not self._advance(candidate, data, begin):
                continue
            if _enough(candidate):
                return Found(0, data[begin:])
            if candidate.frames:
                self._candidates.append(candidate)
        if len(self._candidates) > MOST_CANDIDATES:
            # One that declares absurd lengths could stay for ever.
            self._candidates.sort(key=lambda candidate: candidate.ahead)
            del self._candidates[MOST_CANDIDATES:]
        return None

    def _inside(self, data: Chunk) -> Iterator[int]:
        """Where large frames seem to begin within a segment."""
        data = bytes(data)
        at = data.find(_LARGE[self._side], 2)
        for _ in range(MOST_CANDIDATES):
            if at < 0:
                return
            if data[at - 1] in _BEGINNINGS:
                yield at - 1
            at = data.find(_LARGE[self._side], at + 1)

    def _follow(self, data: Chunk) -> Found | None:
        going_on = []
        for candidate in self._candidates:
            part, ahead = candidate.part, candidate.ahead
            if self._advance(candidate, data, 0):
                if _enough(candidate):
                    return Found(max(0, ahead - len(data)), part + bytes(data[ahead:]) if part else data[ahead:])
                going_on.append(candidate)
        self._candidates = going_on
        return None

    def _advance(self, candidate: _Candidate, data: Chunk, begin: int) -> bool:
        """Follow a candidate through `data` from `begin` on. Returns whether it may still be one."""
        if candidate.part:
            data, candidate.part = candidate.part + bytes(data), b""
        at = begin + candidate.ahead
        while at < len(data):
            try:
                header = header_at(data, at, self._side)
            except IndexError:
                candidate.part = bytes(data[at:])
                candidate.ahead = 0
                return True
            if header is None or not candidate.frame(header):
                return False
            at += header.size + header.length
        candidate.ahead = at - len(data)
        if not candidate.ahead:
            candidate.evidence += candidate.last
            candidate.last = 0
        return True


def _enough(candidate: _Candidate) -> bool:
    return candidate.evidence >= ENOUGH and candidate.messages > 0
