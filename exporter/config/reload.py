"""What a reload changes at once, and what has to wait for a restart."""

from collections.abc import Iterator
from types import MappingProxyType

import msgspec

from exporter.config.model import SETTINGS, Config, Setting, TapConfig
from exporter.config.values import show_duration, show_size


class ReloadPlan(msgspec.Struct, frozen=True):
    """`config` is in force from now on; `kept` has a sentence for each change that needs a restart."""

    config: Config
    kept: tuple[str, ...]


def diff_for_reload(old: Config, new: Config) -> ReloadPlan:
    """What of `new` can replace what runs with `old`.

    Reloadable: targets (new ones, and all settings of each) and the log level.
    A target that is gone stays as it was: its counters must not vanish while the process lives.
    """
    reloadable = {setting.attribute: getattr(new, setting.attribute) for setting in SETTINGS if setting.reloadable}
    # In the new order, because the first match wins, as it will after a restart.
    gone = {name: target for name, target in old.targets.items() if name not in new.targets}
    targets = MappingProxyType({**new.targets, **gone})
    config = msgspec.structs.replace(old, targets=targets, **reloadable)
    return ReloadPlan(
        config,
        (
            *_kept_settings(old, new),
            *_kept_taps(old, new),
            *_kept_captures(old, new),
            *_kept_probes(old, new),
            *_kept_targets(old, new),
        ),
    )


def _kept_settings(old: Config, new: Config) -> Iterator[str]:
    for setting in SETTINGS:
        before, after = getattr(old, setting.attribute), getattr(new, setting.attribute)
        if before != after and not setting.reloadable:
            was, now = _shown(before, setting), _shown(after, setting)
            yield f"{setting.name} stays {was} until a restart; it is now configured as {now}"


def _kept_taps(old: Config, new: Config) -> Iterator[str]:
    before = {tap.listen: tap for tap in old.tap}
    after = {tap.listen: tap for tap in new.tap}
    for listen, tap in before.items():
        if listen not in after:
            yield f"tap {listen} keeps running until a restart; it is no longer configured"
        elif after[listen] != tap:
            was, now = _relay(tap), _relay(after[listen])
            yield f"tap {listen} stays {was} until a restart; it is now configured as {now}"
    for listen in after:
        if listen not in before:
            yield f"tap {listen} is new; it starts at the next restart"


def _kept_captures(old: Config, new: Config) -> Iterator[str]:
    before = {str(capture): capture for capture in old.capture}
    after = {str(capture): capture for capture in new.capture}
    for name, capture in before.items():
        if name not in after:
            yield f"capture {name} keeps running until a restart; it is no longer configured"
        elif after[name] != capture:
            was, now = capture.target, after[name].target
            yield f"capture {name} stays one of target {was} until a restart; it is now configured for {now}"
    for name in after:
        if name not in before:
            yield f"capture {name} is new; it starts at the next restart"


def _kept_probes(old: Config, new: Config) -> Iterator[str]:
    before = {probe.target: probe for probe in old.probe}
    after = {probe.target: probe for probe in new.probe}
    for target, probe in before.items():
        if target not in after:
            yield f"probe {target} keeps running until a restart; it is no longer configured"
        elif after[target] != probe:
            yield f"probe {target} keeps its settings until a restart; it is now configured with others"
    for target in after:
        if target not in before:
            yield f"probe {target} is new; it starts at the next restart"


def _kept_targets(old: Config, new: Config) -> Iterator[str]:
    for name in old.targets:
        if name not in new.targets:
            yield f"target {name} keeps its settings and series until a restart; it is no longer configured"


def _relay(tap: TapConfig) -> str:
    sources = f", from {', '.join(tap.source_addresses)}" if tap.source_addresses else ""
    return f"{tap.upstream} (target {tap.target}{sources})"


def _shown(value: object, setting: Setting) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return show_duration(value)
        case int() if setting.metavar == "SIZE":
            return show_size(value)
        case None:
            return setting.default or "unset"
        case _:
            return str(value)
