"""Reads the captures that the layers of the configuration have, keeps every fault, and checks how they fit together."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from exporter.config import values
from exporter.config.model import DEFAULT_TARGET, CaptureConfig
from exporter.config.reader import Place, Reader
from exporter.config.values import quoted

_PARSERS: Final[Mapping[str, Callable[[object], object]]] = {
    "interface": values.parse_interface,
    "port": values.parse_port,
    "target": values.parse_target_name,
}


class GivenCapture(NamedTuple):
    """A capture as given; None stands for one that had a fault."""

    place: Place
    config: CaptureConfig | None


def parse_capture_flag(text: str) -> CaptureConfig:
    """`INTERFACE:PORT[,target=NAME]`. Raises ValueError with a sentence."""
    traffic, *options = text.split(",")
    interface, colon, port = traffic.rpartition(":")
    if not colon:
        raise ValueError("expected INTERFACE:PORT[,target=NAME]")
    target = DEFAULT_TARGET
    for option in options:
        key, _, value = option.partition("=")
        if key != "target":
            raise ValueError(f"{quoted(option)} is unknown; only target=NAME may follow the port")
        target = values.parse_target_name(value)
    return CaptureConfig(values.parse_interface(interface), values.parse_port(port), target)


def read_capture_texts(reader: Reader, origin: str, texts: Sequence[str]) -> list[GivenCapture]:
    """The captures of flags or of the environment."""
    places = [Place("", f"{origin} {quoted(text)}") for text in texts]
    return [
        GivenCapture(place, reader.value(place, text, lambda value: parse_capture_flag(str(value))))
        for place, text in zip(places, texts, strict=True)
    ]


def read_captures(reader: Reader, place: Place, value: object) -> list[GivenCapture]:
    """The captures of the file's section."""
    given = []
    for at, item in reader.items(place, value):
        body = reader.mapping(at, item, _PARSERS)
        if item is not None and not isinstance(item, dict):
            continue
        for key in ("interface", "port"):
            if key not in body:
                reader.fault(at.key(key), "missing")
        found: dict[str, Any] = reader.entries(at, body, _PARSERS)
        complete = {"interface", "port", *body} <= set(found)
        given.append(GivenCapture(at, CaptureConfig(**found) if complete else None))
    return given


def check_captures(reader: Reader, given: Sequence[GivenCapture], targets: Collection[str]) -> None:
    """The same traffic is captured but once, and counts as one of `targets` where there are any."""
    first: dict[str, Place] = {}
    for place, config in given:
        if config is None:
            continue
        if targets and config.target not in targets:
            known = ", ".join(targets)
            reader.fault(place.key("target"), f"{quoted(config.target)} is not one of the targets: {known}")
        traffic = str(config)
        if traffic in first:
            reader.fault(place, f"{quoted(traffic)} is captured already by {first[traffic].name}")
        first.setdefault(traffic, place)


def check_ring_sizes(reader: Reader, settings: Mapping[str, Any], places: Mapping[str, Place]) -> None:
    """A ring may not begin larger than it may become."""
    size, most = settings["capture_ring_size"], settings["capture_ring_size_limit"]
    if size is not None and most is not None and size > most:
        reader.fault(
            places["capture_ring_size"],
            f"{values.show_size(size)} is larger than --capture.ring-size-limit, {values.show_size(most)}",
        )
