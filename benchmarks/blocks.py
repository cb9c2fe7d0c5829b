"""Writes a block of Prometheus' storage: a day of many series, in seconds rather than hours.

The format is Prometheus' own (tsdb/docs/format: index version 2, chunks version 1). Series with the same samples share
their chunks, which the format allows: an index entry only says where a chunk is. A reader decodes as much as ever.
"""

import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

Labels = tuple[tuple[str, str], ...]
"""Sorted, `__name__` among them."""

PER_CHUNK: Final = 120
"""Samples in a chunk, as Prometheus cuts them."""

_XOR: Final = b"\x01"
_ULID: Final = "01HZZZZZZZZZZZZZZZZZZZZZZZ"


def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_CRC: Final = _crc_table()


def write(
    folder: Path, series: Iterable[tuple[Labels, int]], start: int, step: int, values: Sequence[list[int]]
) -> None:
    """Write one block. Each of `series` has the samples of one of the `values`, every `step` ms from `start` ms on."""
    block = folder / _ULID
    (block / "chunks").mkdir(parents=True)
    segment = bytearray(struct.pack(">IB3x", 0x85BD40DD, 1))
    metas = [_chunks(segment, start, step, samples) for samples in values]
    (block / "chunks/000001").write_bytes(segment)
    ordered = sorted(series)
    (block / "index").write_bytes(_index(ordered, metas))
    end = start + step * len(values[0])
    stats = {"numSamples": len(values[0]) * len(ordered), "numSeries": len(ordered)}
    meta = {"ulid": _ULID, "minTime": start, "maxTime": end, "version": 1, "stats": stats}
    (block / "meta.json").write_text(json.dumps(meta | {"compaction": {"level": 1, "sources": [_ULID]}}))


def _chunks(segment: bytearray, start: int, step: int, samples: list[int]) -> bytes:
    """Append the chunks of these samples to `segment`; returns what an index entry says of them."""
    entries = bytearray()
    last_time, last_place = 0, 0
    for first in range(0, len(samples), PER_CHUNK):
        part = samples[first : first + PER_CHUNK]
        begin = start + step * first
        end = begin + step * (len(part) - 1)
        place = len(segment)
        data = _xor(begin, step, part)
        segment += _uvarint(len(data)) + _XOR + data + struct.pack(">I", _crc(_XOR + data))
        if first == 0:
            entries += _varint(begin) + _uvarint(end - begin) + _uvarint(place)
        else:
            entries += _uvarint(begin - last_time) + _uvarint(end - begin) + _varint(place - last_place)
        last_time, last_place = end, place
    return _uvarint(-(-len(samples) // PER_CHUNK)) + bytes(entries)


def _xor(begin: int, step: int, samples: list[int]) -> bytes:
    """Samples at an even pace, in Gorilla's encoding."""
    bits, length = 0, 0

    def put(value: int, width: int) -> None:
        nonlocal bits, length
        bits, length = bits << width | value, length + width

    leading = trailing = -1
    before = 0
    for number, sample in enumerate(samples):
        now = int.from_bytes(struct.pack(">d", sample), "big")
        changed = now ^ before
        before = now
        if number == 0:
            put(int.from_bytes(_varint(begin), "big"), 8 * len(_varint(begin)))
            put(now, 64)
            continue
        if number == 1:
            put(int.from_bytes(_uvarint(step), "big"), 8 * len(_uvarint(step)))
        else:
            put(0, 1)  # the same pace
        if not changed:
            put(0, 1)
            continue
        zeros, low = min(64 - changed.bit_length(), 31), (changed & -changed).bit_length() - 1
        if leading >= 0 and zeros >= leading and low >= trailing:
            put(0b10, 2)
        else:
            leading, trailing = zeros, low
            put(0b11, 2)
            put(leading, 5)
            put(64 - leading - trailing & 63, 6)
        put(changed >> trailing, 64 - leading - trailing)
    padding = -length % 8
    return struct.pack(">H", len(samples)) + (bits << padding).to_bytes((length + padding) // 8, "big")


def _index(series: list[tuple[Labels, int]], metas: list[bytes]) -> bytes:
    out = bytearray(struct.pack(">IB", 0xBAAAD700, 2))
    symbols = sorted({text for labels, _ in series for pair in labels for text in pair})
    reference = {text: _uvarint(number) for number, text in enumerate(symbols)}
    places = [len(out)]
    out += _section(struct.pack(">I", len(symbols)) + b"".join(map(_text, symbols)))
    places.append(len(out))
    postings: dict[tuple[str, str], list[int]] = {("", ""): []}
    for labels, kind in series:
        out += bytes(-len(out) % 16)
        for pair in (("", ""), *labels):
            postings.setdefault(pair, []).append(len(out) // 16)
        entry = _uvarint(len(labels)) + b"".join(reference[name] + reference[value] for name, value in labels)
        entry += metas[kind]
        out += _uvarint(len(entry)) + entry + struct.pack(">I", _crc(entry))
    lists = len(out)
    offsets = bytearray(struct.pack(">I", len(postings)))
    for name, value in sorted(postings):
        out += bytes(-len(out) % 4)
        offsets += _uvarint(2) + _text(name) + _text(value) + _uvarint(len(out))
        found = postings[name, value]
        out += _section(struct.pack(f">I{len(found)}I", len(found), *found))
    # Label indices are no longer read: an empty table says so.
    tables = len(out)
    out += _section(struct.pack(">I", 0))
    contents = struct.pack(">6Q", *places, lists, tables, lists, len(out))
    out += _section(bytes(offsets))
    return bytes(out) + contents + struct.pack(">I", _crc(contents))


def _section(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body + struct.pack(">I", _crc(body))


def _text(text: str) -> bytes:
    return _uvarint(len(text.encode())) + text.encode()


def _crc(data: bytes) -> int:
    """CRC-32 with Castagnoli's polynomial."""
    value, table = 0xFFFFFFFF, _CRC
    for byte in data:
        value = table[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _uvarint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varint(number: int) -> bytes:
    return _uvarint(number << 1 if number >= 0 else (-number << 1) - 1)
