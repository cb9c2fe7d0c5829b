"""What is captured, as it is configured. Faulty files are among those of tests/testdata/config."""

from pathlib import Path

import pytest

from exporter.config import (
    CaptureConfig,
    Config,
    ConfigError,
    Target,
    diff_for_reload,
    load,
    parse_capture_flag,
    quoted,
)
from exporter.config.values import parse_size, show_size


def captured(*captures: str, environment: str = "") -> Config:
    return load(environment={"WEBSOCKET_EXPORTER_CAPTURE": environment}, captures=captures)


def load_text(tmp_path: Path, text: str, *captures: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load({"config.file": str(path)}, captures=captures)


def faults(*captures: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        captured(*captures)
    return list(caught.value.faults)


def test_every_key_is_read(tmp_path: Path) -> None:
    """A capture has interface, port and target; what holds for all of them is a section of its own."""
    text = """
targets: {chat: , "7": }
capture:
  - {interface: eth0, port: 8080, target: chat}
  - {interface: 7, port: "65535", target: 7}
capture_options: {mode: lifecycle, ring_size: 1MiB, ring_size_limit: 1GiB, optional: true, fd: 3}
"""
    found = load_text(tmp_path, text)
    assert found.capture == (CaptureConfig("eth0", 8080, "chat"), CaptureConfig("7", 65535, "7"))
    assert found.capture_mode == "lifecycle"
    assert (found.capture_ring_size, found.capture_ring_size_limit) == (1 << 20, 1 << 30)
    assert found.capture_optional is True
    assert found.capture_fd == 3


def test_defaults() -> None:
    """Nothing is captured unless told; then closes and sizes, with rings that may grow, and it has to work."""
    found = load()
    assert found.capture == ()
    assert (found.capture_mode, found.capture_optional, found.capture_fd) == ("full", False, None)
    assert (found.capture_ring_size, found.capture_ring_size_limit) == (8 << 20, 16 << 20)


@pytest.mark.parametrize(
    ("text", "capture"),
    [
        ("lo:1", CaptureConfig("lo", 1)),
        ("eth0.7:65535,target=chat", CaptureConfig("eth0.7", 65535, "chat")),
        ("br-0a1b2c3d4e5f:80,target=a,target=b", CaptureConfig("br-0a1b2c3d4e5f", 80, "b")),
    ],
)
def test_flag(text: str, capture: CaptureConfig) -> None:
    """A flag has interface and port, and may name the target."""
    assert parse_capture_flag(text) == capture
    assert str(capture) == text.partition(",")[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected INTERFACE:PORT[,target=NAME]"),
        ("lo", "expected INTERFACE:PORT[,target=NAME]"),
        (":80", '"" is not a network interface like eth0'),
        ("lo:", '"" is not a port between 1 and 65535'),
        ("a:b:80", '"a:b" is not a network interface like eth0'),
        ("\u00e9th0:80", '"\\u00e9th0" is not a network interface like eth0'),
        ("lo:80,chat", '"chat" is unknown; only target=NAME may follow the port'),
        ("lo:80,target=", '"" is not a target name (1 to 64 of A-Z a-z 0-9 _ . -)'),
    ],
)
def test_faulty_flag_is_one_sentence(text: str, sentence: str) -> None:
    """What is wrong with a flag is said with the flag."""
    assert faults(text) == [f"--capture {quoted(text)}: {sentence}"]


def test_all_faults_of_flags_are_said() -> None:
    """One look shows them all, and the same traffic is captured but once, for whatever target."""
    assert faults("lo:80", "x", "lo:80,target=a") == [
        '--capture "x": expected INTERFACE:PORT[,target=NAME]',
        '--capture "lo:80,target=a": "lo:80" is captured already by --capture "lo:80"',
    ]


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """Captures are taken whole from the first layer that has any."""
    assert captured("lo:1", environment="lo:2 lo:3").capture == (CaptureConfig("lo", 1),)
    assert captured(environment=" lo:2\n lo:3,target=a").capture == (
        CaptureConfig("lo", 2),
        CaptureConfig("lo", 3, "a"),
    )
    text = "capture: [{interface: lo, port: 4}]"
    assert load_text(tmp_path, text).capture == (CaptureConfig("lo", 4),)
    assert load_text(tmp_path, text, "lo:1").capture == (CaptureConfig("lo", 1),)


def test_captures_define_their_targets() -> None:
    """Where no targets are listed, a capture's target is one."""
    assert dict(captured("lo:1", "lo:2,target=a").targets) == {"default": Target("default"), "a": Target("a")}


def test_ring_may_not_begin_larger_than_it_may_become() -> None:
    """Both layers are named where the sizes do not fit together; as large as the limit is right."""
    assert load({"capture.ring-size": "16MiB"}).capture_ring_size == 16 << 20
    with pytest.raises(ConfigError) as caught:
        load({"capture.ring-size": "2MiB", "capture.ring-size-limit": "1536KiB"})
    assert caught.value.faults == ("--capture.ring-size: 2MiB is larger than --capture.ring-size-limit, 1536KiB",)


@pytest.mark.parametrize("text", ["1", "1023", "1KiB", "1025", "4MiB", "1GiB", "1536MiB"])
def test_sizes_are_shown_as_they_are_written(text: str) -> None:
    """A size is shown in the largest unit of which it is a multiple."""
    assert show_size(parse_size(text)) in (text, f"{text}B")


def test_changes_wait_for_a_restart() -> None:
    """Captures that are gone, others, new ones and their settings are each told in a sentence."""
    old = captured("lo:1", "lo:2", "lo:3")
    new = load({"capture.ring-size": "4MiB", "capture.fd": "3"}, captures=("lo:1", "lo:3,target=a", "lo:4"))
    plan = diff_for_reload(old, new)
    assert plan.config.capture == old.capture
    assert plan.kept == (
        "capture.ring-size stays 8MiB until a restart; it is now configured as 4MiB",
        "capture.fd stays unset until a restart; it is now configured as 3",
        "capture lo:2 keeps running until a restart; it is no longer configured",
        "capture lo:3 stays one of target default until a restart; it is now configured for a",
        "capture lo:4 is new; it starts at the next restart",
    )
