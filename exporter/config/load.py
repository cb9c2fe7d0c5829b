"""Reads every layer of the configuration, keeps every fault, and checks what must fit together."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from exporter.config import document, values
from exporter.config.model import (
    DEFAULT_TARGET,
    LIMITS_KEYS,
    SETTINGS,
    TARGET_KEYS,
    Config,
    ConfigError,
    Limits,
    Match,
    TapConfig,
    Target,
    environment_variable,
)
from exporter.config.overlap import dials, ip_version, same_socket
from exporter.config.probe_section import check_probes, read_probe_texts, read_probes
from exporter.config.reader import Place, Reader
from exporter.config.values import Address, KeyRule, UnixPath, quoted

MOST_BUILDS: Final = 50
"""Client builds that a target may list."""

_NONE_GIVEN: Final[Mapping[str, str]] = MappingProxyType({})
_TAP_PARSERS: Final[Mapping[str, Callable[[object], object]]] = {
    "listen": values.parse_listen,
    "upstream": values.parse_upstream,
    "target": values.parse_target_name,
}
_TAP_KEYS: Final = (*_TAP_PARSERS, "source_addresses")
_LISTENERS: Final = ("web_listen_address", "webhook_listen_address")
_SECTIONS: Final = {"targets", "tap", "probe", *(setting.section for setting in SETTINGS)}


def load(
    flags: Mapping[str, str] = _NONE_GIVEN,
    taps: Sequence[str] = (),
    environment: Mapping[str, str] = _NONE_GIVEN,
    probes: Sequence[str] = (),
) -> Config:
    """The configuration of this process. Raises ConfigError with every fault of every layer.

    `flags` has the text of each flag that was given, by its name without dashes; `taps` the texts of --tap,
    `probes` those of --probe. Taps are taken whole from the first of flags, environment and file that has any, and so
    are probes.
    Reads a file: on an event loop, call it in a thread.
    """
    reader = Reader()
    file, place, sections = _read_file(reader, flags, environment)
    targets = _read_targets(reader, place.key("targets"), sections.get("targets"))
    layers = (
        _read_tap_texts(reader, "--tap", taps),
        _read_tap_texts(reader, environment_variable("tap"), environment.get(environment_variable("tap"), "").split()),
        _read_taps(reader, place.key("tap"), sections.get("tap")),
    )
    given = next((layer for layer in layers if layer), [])
    variable = environment_variable("probe")
    probe_layers = (
        read_probe_texts(reader, "--probe", probes),
        read_probe_texts(reader, variable, environment.get(variable, "").split()),
        read_probes(reader, place.key("probe"), sections.get("probe")),
    )
    given_probes = next((layer for layer in probe_layers if layer), [])
    settings, places = _read_settings(reader, place, sections, flags, environment)
    _check_targets(reader, given, targets)
    _check_listeners(reader, given, [(settings[name], places[name]) for name in _LISTENERS])
    _check_loops(reader, given)
    _check_source_addresses(reader, given)
    check_probes(reader, given_probes, targets)
    if reader.faults:
        raise ConfigError(tuple(reader.faults))
    tap = tuple(
        TapConfig(tap.listen, tap.upstream, tap.target, tap.source_addresses)  # type: ignore[arg-type]
        for tap in given
    )
    probe = tuple(given.config for given in given_probes if given.config is not None)
    implied = [tap.target for tap in tap] + [probe.target for probe in probe]
    if not implied or settings["webhook_listen_address"] is not None:
        implied.append(DEFAULT_TARGET)
    return Config(
        targets=MappingProxyType(targets or {name: Target(name) for name in implied}),
        targets_listed=bool(targets),
        tap=tap,
        probe=probe,
        config_file=file,
        **settings,
    )


def parse_tap_flag(text: str) -> TapConfig:
    """`LISTEN=UPSTREAM[,target=NAME]`. Raises ValueError with a sentence."""
    listen, equals, rest = text.partition("=")
    if not equals:
        raise ValueError("expected LISTEN=UPSTREAM[,target=NAME]")
    upstream, *options = rest.split(",")
    target = DEFAULT_TARGET
    for option in options:
        key, _, value = option.partition("=")
        if key != "target":
            raise ValueError(f"{quoted(option)} is unknown; only target=NAME may follow the upstream")
        target = values.parse_target_name(value)
    return TapConfig(values.parse_listen(listen), values.parse_upstream(upstream), target)


class _Tap(NamedTuple):
    """A tap as given; None stands for what had a fault."""

    place: Place
    listen: Address | None
    upstream: Address | UnixPath | None
    target: str | None
    source_addresses: tuple[str | None, ...] = ()


def _read_file(
    reader: Reader, flags: Mapping[str, str], environment: Mapping[str, str]
) -> tuple[Path | None, Place, dict[str, Any]]:
    name = flags.get("config.file")
    if name == "":
        reader.fault(Place("", "--config.file"), "names no file")
    name = name or environment.get(environment_variable("config.file"))
    if not name:
        return None, Place("no file"), {}
    place = Place(name if name.isprintable() else quoted(name))
    try:
        data, faults = document.parse(document.read_text(Path(name)))
    except document.DocumentError as error:
        reader.faults.append(str(error))
        return Path(name), place, {}
    for sentence in faults:
        reader.fault(place, sentence)
    return Path(name), place, reader.mapping(place, data, _SECTIONS)


def _read_targets(reader: Reader, place: Place, value: object) -> dict[str, Target]:
    targets = {}
    for name, body in reader.mapping(place, value).items():
        if reader.value(place, name, values.parse_target_name):
            targets[name] = _read_target(reader, place.key(name), name, body)
    return targets


def _read_target(reader: Reader, place: Place, name: str, value: object) -> Target:
    body = reader.mapping(place, value, TARGET_KEYS)
    patterns = {"host": values.parse_host_pattern, "path": values.parse_path_pattern}

    def codes(key: str, parse: Callable[[object], int]) -> frozenset[int]:
        found = (reader.value(at, item, parse) for at, item in reader.items(place.key(key), body.get(key)))
        return frozenset(code for code in found if code is not None)

    networks = reader.items(place.key("trusted_proxies"), body.get("trusted_proxies"))
    trusted = [reader.value(at, item, values.parse_network) for at, item in networks]
    return Target(
        name=name,
        match=Match(**reader.entries(place.key("match"), body.get("match"), patterns)),
        limits=Limits(
            **reader.entries(place.key("limits"), body.get("limits"), dict.fromkeys(LIMITS_KEYS, values.parse_size))
        ),
        codes=codes("codes", values.parse_application_code),
        going_away_codes=codes("going_away_codes", values.parse_going_away_code),
        client_key=_read_client_key(reader, place, body, trusted=bool(body.get("trusted_proxies"))),
        trusted_proxies=tuple(network for network in trusted if network is not None),
        client_builds=_read_builds(reader, place.key("client_builds"), body.get("client_builds")),
    )


def _read_client_key(reader: Reader, place: Place, body: Mapping[str, object], *, trusted: bool) -> KeyRule:
    """By what clients are recognised; `trusted` is whether proxies are named."""
    at = place.key("client_key")
    key = reader.value(at, body["client_key"], values.parse_client_key) if "client_key" in body else KeyRule()
    if key is None:
        return KeyRule()
    if key.kind == "forwarded" and not trusted:
        reader.fault(at, "forwarded needs trusted_proxies: anybody can send X-Forwarded-For")
    elif key.kind != "forwarded" and trusted:
        reader.fault(place.key("trusted_proxies"), "is only for client_key: forwarded")
    return key


def _read_builds(reader: Reader, place: Place, value: object) -> tuple[str, ...]:
    """Client builds: each is as good as a label, so their number is bounded."""
    found = [
        build
        for at, item in reader.items(place, value)
        if (build := reader.value(at, item, values.parse_client_build)) is not None
    ]
    if len(found) > MOST_BUILDS:
        reader.fault(place, f"lists {len(found)} builds; at most {MOST_BUILDS} can be labels")
    return tuple(found)


def _read_taps(reader: Reader, place: Place, value: object) -> list[_Tap]:
    taps = []
    for at, item in reader.items(place, value):
        body = reader.mapping(at, item, _TAP_KEYS)
        if item is not None and not isinstance(item, dict):
            continue
        for key in ("listen", "upstream"):
            if key not in body:
                reader.fault(at.key(key), "missing")
        listed = reader.items(at.key("source_addresses"), body.pop("source_addresses", None))
        found: dict[str, Any] = reader.entries(at, body, _TAP_PARSERS)
        target = found.get("target", None if "target" in body else DEFAULT_TARGET)
        sources = tuple(reader.value(place, address, values.parse_source_address) for place, address in listed)
        taps.append(_Tap(at, found.get("listen"), found.get("upstream"), target, sources))
    return taps


def _read_tap_texts(reader: Reader, origin: str, texts: Sequence[str]) -> list[_Tap]:
    taps = []
    for text in texts:
        place = Place("", f"{origin} {quoted(text)}")
        tap = reader.value(place, text, lambda value: parse_tap_flag(str(value)))
        if tap is not None:
            taps.append(_Tap(place, tap.listen, tap.upstream, tap.target))
    return taps


def _read_settings(
    reader: Reader,
    place: Place,
    sections: Mapping[str, object],
    flags: Mapping[str, str],
    environment: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, Place]]:
    """The value of each setting, and where it came from, by the name of its field; all layers are checked."""
    settings: dict[str, Any] = {}
    places: dict[str, Place] = {}
    bodies = {}
    for section in dict.fromkeys(setting.section for setting in SETTINGS):
        known = [setting.key for setting in SETTINGS if setting.section == section]
        bodies[section] = reader.mapping(place.key(section), sections.get(section), known)
    for setting in SETTINGS:
        layers: list[tuple[Place, object]] = [(Place("", f"the default of {setting.flag}"), setting.default)]
        if setting.key in bodies[setting.section]:
            layers.append((place.key(setting.section).key(setting.key), bodies[setting.section][setting.key]))
        if environment.get(setting.variable):
            layers.append((Place("", setting.variable), environment[setting.variable]))
        if setting.name in flags:
            layers.append((Place("", setting.flag), flags[setting.name]))
        for at, value in layers:
            settings[setting.attribute] = reader.value(at, value, setting.parse)
            places[setting.attribute] = at
    return settings, places


def _check_targets(reader: Reader, taps: Sequence[_Tap], targets: Mapping[str, Target]) -> None:
    for tap in taps:
        if targets and tap.target is not None and tap.target not in targets:
            reader.fault(
                tap.place.key("target"), f"{quoted(tap.target)} is not one of the targets: {', '.join(targets)}"
            )


def _check_listeners(reader: Reader, taps: Sequence[_Tap], own: Sequence[tuple[Address | None, Place]]) -> None:
    """No two listeners may want the same socket: neither taps nor the exporter's `own`."""
    taken: list[tuple[Address, Place]] = []
    for address, place in [*own, *((tap.listen, tap.place.key("listen")) for tap in taps)]:
        if address is None:
            continue
        other = next((at for before, at in taken if same_socket(before, address)), None)
        if other is not None:
            reader.fault(place, f"{quoted(str(address))} is already taken by {other.name}")
        taken.append((address, place))


def _check_loops(reader: Reader, taps: Sequence[_Tap]) -> None:
    """No chain of taps may lead back to its start: one connection would become endlessly many."""
    following = {here: _tap_behind(tap.upstream, taps) for here, tap in enumerate(taps)}
    for start, tap in enumerate(taps):
        chain: list[int] = []
        here = following.get(start)
        while here is not None and here not in (start, *chain):
            chain.append(here)
            here = following.get(here)
        if here != start or min(chain, default=start) < start:
            continue
        way = f" through {', '.join(taps[step].place.name for step in chain)}" if chain else ""
        reader.fault(tap.place.key("upstream"), f"{quoted(str(tap.upstream))} leads back to this tap{way}: a loop")


def _tap_behind(upstream: Address | UnixPath | None, taps: Sequence[_Tap]) -> int | None:
    reached = (there for there, tap in enumerate(taps) if upstream and tap.listen and dials(upstream, tap.listen))
    return next(reached, None)


def _check_source_addresses(reader: Reader, taps: Sequence[_Tap]) -> None:
    """Each must add local ports to dial from: no address twice, and all of the upstream's family."""
    for tap in taps:
        place, upstream = tap.place.key("source_addresses"), quoted(str(tap.upstream))
        if isinstance(tap.upstream, UnixPath):
            if tap.source_addresses:
                reader.fault(place, f"{upstream} is a Unix socket, which is dialled from no address")
            continue
        family = tap.upstream and ip_version(tap.upstream.host)
        for index, address in enumerate(tap.source_addresses):
            if address and address in tap.source_addresses[:index]:
                reader.fault(place.item(index), f"{quoted(address)} is given twice")
            if address and family and ip_version(address) != family:
                reader.fault(place.item(index), f"{quoted(address)} cannot dial {upstream}, an IPv{family} address")
