"""Configuration: every fault gets its exact sentence, layers win in order, and a reload changes what it may."""

import os
import re
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import config
from exporter.closecodes import Vocabulary
from exporter.config import (
    SETTINGS,
    Address,
    Config,
    ConfigError,
    Limits,
    Match,
    TapConfig,
    Target,
    UnixPath,
    diff_for_reload,
    environment_variable,
    load,
    parse_listen,
    parse_tap_flag,
    parse_upstream,
    quoted,
)
from exporter.config.document import MAX_BYTES
from exporter.config.model import covers
from exporter.config.values import (
    KeyRule,
    parse_boolean,
    parse_client_key,
    parse_connections,
    parse_duration,
    parse_network,
    parse_size,
    parse_source_address,
    parse_timeout,
    show_duration,
)

TESTDATA: Final = Path(__file__).parent / "testdata" / "config"
REFERENCE: Final = Path(__file__).parent.parent / "docs" / "configuration.md"
FAULTY: Final = sorted(path.stem for path in TESTDATA.glob("*.yaml"))

TAP: Final = ":8080=10.0.0.5:8081"
PLAIN: Final = load(taps=[TAP])


def faults(
    flags: Mapping[str, str] | None = None, taps: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, taps, environment or {})
    return list(caught.value.faults)


def load_text(tmp_path: Path, text: str, **rest: str) -> Config:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    return load({"config.file": str(tmp_path / "config.yaml"), **rest})


# -- faults of the file


@pytest.mark.parametrize("name", FAULTY)
def test_each_faulty_file_gets_its_exact_sentences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fault of a file is one line that names file, place and fault, as the text file beside it says."""
    monkeypatch.chdir(TESTDATA)
    expected = Path(f"{name}.txt").read_text(encoding="utf-8")
    assert "".join(f"{line}\n" for line in faults({"config.file": f"{name}.yaml"})) == expected


@pytest.mark.parametrize("name", FAULTY)
def test_fault_lines_are_plain(name: str) -> None:
    """Whatever a file contains, its faults are lines of printable ASCII that begin with the file's name."""
    text = (TESTDATA / f"{name}.txt").read_text(encoding="utf-8")
    assert text
    for line in text.splitlines():
        assert line.startswith(f"{name}.yaml: ")
        assert line.isascii()
        assert line.isprintable()


def test_no_expectation_is_orphaned() -> None:
    """Each expected text belongs to a file."""
    assert sorted(path.stem for path in TESTDATA.iterdir() if path.suffix == ".txt") == FAULTY


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that does not exist is one sentence with its path."""
    assert faults({"config.file": f"{tmp_path}/none.yaml"}) == [f"cannot read {tmp_path}/none.yaml: no such file"]


def test_folder_is_no_file(tmp_path: Path) -> None:
    """A folder in the file's place is said to be one."""
    assert faults({"config.file": str(tmp_path)}) == [f"cannot read {tmp_path}: is a directory"]


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A device or a pipe, which may never end or never begin, is refused at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in ("/dev/zero", str(pipe)):
        assert faults({"config.file": path}) == [f"cannot read {path}: not a regular file"]


def test_largest_file_is_read(tmp_path: Path) -> None:
    """1 MiB is the limit: a file of that size is read, one byte more is refused."""
    text = "# " + "x" * (MAX_BYTES - 3) + "\n"
    assert load_text(tmp_path, text).tap == ()
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_text(tmp_path, text + "\n")


def test_text_that_is_not_utf8_is_placed(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are found by their line."""
    path = tmp_path / "latin1.yaml"
    path.write_bytes(b"tap: []\n# caf\xe9\n")
    assert faults({"config.file": str(path)}) == [f"cannot read {path}: line 2 is not UTF-8"]


def test_odd_characters_in_the_path_are_escaped() -> None:
    """A path cannot forge a second line."""
    assert faults({"config.file": "/no\nsuch"}) == ['cannot read "/no\\nsuch": no such file']


def test_empty_path_is_a_fault() -> None:
    """--config.file= without a value is no file; an empty variable is as if it were not set."""
    assert faults({"config.file": ""}) == ["--config.file: names no file"]
    assert load(environment={"WEBSOCKET_EXPORTER_CONFIG_FILE": ""}).config_file is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "tap:\ntargets:\nweb:\n", "\ufeffweb: {}\n", "{}", "---\n"])
def test_empty_sections_are_defaults(tmp_path: Path, text: str) -> None:
    """A file, a section or an entry without content changes nothing."""
    found = load_text(tmp_path, text)
    assert msgspec.structs.replace(found, config_file=None) == load()


def test_shared_aliases_cost_nothing(tmp_path: Path) -> None:
    """Aliases of aliases, which would expand to a billion entries, are read in no time."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, "\n".join(lines))
    assert len(caught.value.faults) == 10
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("value", ["", "[]"])
def test_no_source_addresses(tmp_path: Path, value: str) -> None:
    """An empty list is none: the kernel chooses, also for a Unix socket."""
    found = load_text(tmp_path, f'tap: [{{listen: ":8080", upstream: "unix:/run/x", source_addresses: {value}}}]')
    assert found.tap[0].source_addresses == ()


# -- what a good file gives

GOOD: Final = """
targets:
  chat:
    match: {host: "*.example.com", path: /ws/*}
    limits: {client_to_server: 1MiB, server_to_client: 16777216}
    codes: [4001, 4404]
    going_away_codes: [3001, 1011]
    client_key: forwarded
    trusted_proxies: [10.0.0.0/8, 192.0.2.1, "FD00:0::/8"]
    client_builds: ["acme-app/*", "okhttp/*", "acme-app/*"]
  no: {limits: {client_to_server: "512"}, client_key: "query:token"}
  404:
tap:
  - {listen: "0.0.0.0:8080", upstream: "127.0.0.1:8081", target: chat}
  - {listen: "[::1]:8080", upstream: "unix:/run/app.sock", target: no}
  - {listen: ":8082", upstream: "app:80", target: no, source_addresses: [10.0.0.2, "FD00:0::2"]}
  - listen: localhost:0
    upstream: "[fe80::1%eth0]:80"
    target: 404
web: {listen_address: "127.0.0.1:9303", telemetry_path: /internal/metrics, enable_lifecycle: true}
log: {level: warn, format: json}
limits: {connections: 5000, connect_timeout: 1s500ms}
shutdown: {grace: 1m30s}
"""


def test_every_key_is_read(tmp_path: Path) -> None:
    """A file with every key gives a configuration with every value."""
    found = load_text(tmp_path, GOOD)
    assert dict(found.targets) == {
        "chat": Target(
            "chat",
            Match("*.example.com", "/ws/*"),
            Limits(1 << 20, 16 << 20),
            frozenset({4001, 4404}),
            frozenset({3001, 1011}),
            KeyRule("forwarded"),
            (ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32"), ip_network("fd00::/8")),
            ("acme-app/*", "okhttp/*", "acme-app/*"),
        ),
        "no": Target("no", limits=Limits(client_to_server=512), client_key=KeyRule("query", "token")),
        "404": Target("404"),
    }
    assert found.tap == (
        TapConfig(Address("0.0.0.0", 8080), Address("127.0.0.1", 8081), "chat"),
        TapConfig(Address("::1", 8080), UnixPath("/run/app.sock"), "no"),
        TapConfig(Address("", 8082), Address("app", 80), "no", ("10.0.0.2", "fd00::2")),
        TapConfig(Address("localhost", 0), Address("fe80::1%eth0", 80), "404"),
    )
    assert found.web_listen_address == Address("127.0.0.1", 9303)
    assert found.web_telemetry_path == "/internal/metrics"
    assert found.web_enable_lifecycle is True
    assert (found.log_level, found.log_format) == ("warning", "json")
    assert (found.limits_connections, found.limits_connect_timeout) == (5000, 1.5)
    assert found.shutdown_grace == 90.0
    assert found.config_file == tmp_path / "config.yaml"


def test_defaults() -> None:
    """Without file, environment and flags there is one target, `default`, and nothing to tap."""
    assert load() == Config(
        targets=MappingProxyType({"default": Target("default")}),
        tap=(),
        web_listen_address=Address("", 11009),
        web_telemetry_path="/metrics",
        web_enable_lifecycle=False,
        log_level="info",
        log_format="auto",
        limits_connections=None,
        limits_connect_timeout=5.0,
        shutdown_grace=25.0,
    )


def test_configuration_is_frozen() -> None:
    """Nobody can change the configuration that others work with."""
    with pytest.raises(AttributeError):
        PLAIN.log_level = "debug"  # type: ignore[misc]
    with pytest.raises(TypeError):
        PLAIN.targets["x"] = Target("x")  # type: ignore[index]


def test_vocabulary_of_a_target() -> None:
    """A target's listed codes and its own words for going away make its close-code labels."""
    target = Target("chat", codes=frozenset({4001}), going_away_codes=frozenset({3001}))
    assert target.vocabulary() == Vocabulary(listed=frozenset({4001}), going_away=frozenset({3001}))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("remote_addr", KeyRule()),
        ("forwarded", KeyRule("forwarded")),
        ("header:X-Device-Id", KeyRule("header", "X-Device-Id")),
        ("cookie:__Host-sid", KeyRule("cookie", "__Host-sid")),
        ("query:t", KeyRule("query", "t")),
        ("query:" + "t" * 128, KeyRule("query", "t" * 128)),
    ],
)
def test_client_keys(text: str, rule: KeyRule) -> None:
    """What clients are recognised by, and its name where it has one."""
    assert parse_client_key(text) == rule


@pytest.mark.parametrize("text", ["", "query:" + "t" * 129, "header:a:b", "header:a b", "HEADER:a", "header:\u00e9"])
def test_what_is_no_client_key(text: str) -> None:
    """Names are tokens (RFC 9110 section 5.6.2), of bounded length."""
    with pytest.raises(ValueError, match=r" is not remote_addr, forwarded, header:NAME, cookie:NAME or query:NAME$"):
        parse_client_key(text)


@given(st.ip_addresses(), st.integers(0, 32))
def test_networks(address: IPv4Address | IPv6Address, prefix: int) -> None:
    """An address is a network of its own; one within a network is a fault that names the network."""
    assert parse_network(str(address)) == ip_network(address)
    network = ip_network(f"{address}/{prefix}", strict=False)
    assert parse_network(str(network)) == network
    if network.network_address != address:
        with pytest.raises(ValueError, match=re.escape(f"is an address within a network; that is {network}")):
            parse_network(f"{address}/{prefix}")


def test_build_of_a_user_agent() -> None:
    """The first pattern that fits the whole User-Agent, in the case given; None where none does."""
    target = Target("chat", client_builds=("acme-app/3*", "acme-app/*", "*okhttp*"))
    agents = ("acme-app/3.1", "acme-app/4", "x okhttp/5", "Acme-App/3", " acme-app/3", "")
    found = [target.build(agent) for agent in agents]
    assert found == ["acme-app/3*", "acme-app/*", "*okhttp*", None, None, None]
    assert Target("chat").build("acme-app/3") is None


# -- flags and environment


def test_flags_define_their_targets() -> None:
    """A --tap needs no targets section: the name it gives is a target."""
    found = load(taps=[":8080=10.0.0.5:8081,target=x", ":8082=10.0.0.5:8083"])
    assert [tap.target for tap in found.tap] == ["x", "default"]
    assert dict(found.targets) == {"x": Target("x"), "default": Target("default")}


def test_taps_of_a_file_define_their_targets(tmp_path: Path) -> None:
    """Nor does a tap of the file, as long as there is no targets section that could tell a typing error."""
    found = load_text(tmp_path, 'tap: [{listen: ":8080", upstream: "10.0.0.5:1", target: x}]')
    assert dict(found.targets) == {"x": Target("x")}


def test_flags_must_name_a_target_of_the_file(tmp_path: Path) -> None:
    """Where targets are defined, a flag's target is one of them."""
    path = tmp_path / "config.yaml"
    path.write_text("targets: {chat: , feed: }")
    assert faults({"config.file": str(path)}, (f"{TAP},target=chats",)) == [
        '--tap ":8080=10.0.0.5:8081,target=chats": "chats" is not one of the targets: chat, feed'
    ]


LAYERS: Final = {
    "web.listen-address": ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
    "web.telemetry-path": ("/a", "/b", "/c"),
    "web.enable-lifecycle": ("true", "false", "true"),
    "web.config.file": ("a", "b", "c"),
    "capture.mode": ("lifecycle", "full", "lifecycle"),
    "capture.ring-size": ("1MiB", "2MiB", "16MiB"),
    "capture.ring-size-limit": ("8MiB", "16MiB", "1GiB"),
    "capture.optional": ("true", "false", "true"),
    "capture.fd": ("3", "5", "1000000"),
    "webhook.listen-address": ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
    "webhook.secrets-file": ("a", "b", "c"),
    "webhook.require-ids": ("true", "false", "true"),
    "webhook.rate-limit": ("0", "1", "1000000"),
    "storage.path": ("a", "b", "c"),
    "storage.window": ("1m", "1h30m", "720h"),
    "storage.max-ids": ("1000", "2000", "100000000"),
    "log.level": ("debug", "warning", "error"),
    "log.format": ("json", "console", "auto"),
    "limits.connections": ("1", "1000000", "007"),
    "limits.connect-timeout": ("1ms", "2s", "24h"),
    "shutdown.grace": ("1s", "2s", "3s"),
}


def test_every_setting_has_layers() -> None:
    """The table above knows every setting."""
    assert set(LAYERS) == {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_flag_wins_over_environment_over_file_over_default(setting: config.Setting, tmp_path: Path) -> None:
    """Each setting is taken from the first of flag, environment, file and default that has it."""
    in_file, in_environment, in_flag = LAYERS[setting.name]
    path = tmp_path / "config.yaml"
    path.write_text(f"{setting.section}: {{{setting.key}: {quoted(in_file)}}}")
    if in_file in ("true", "false"):
        path.write_text(f"{setting.section}: {{{setting.key}: {in_file}}}")
    environment: dict[str, str] = {}
    flags: dict[str, str] = {}

    def value() -> object:
        return getattr(load(flags, environment=environment), setting.attribute)

    assert value() == setting.parse(setting.default)
    environment["WEBSOCKET_EXPORTER_CONFIG_FILE"] = str(path)
    assert value() == setting.parse(in_file)
    environment[setting.variable] = in_environment
    assert value() == setting.parse(in_environment)
    flags[setting.name] = in_flag
    assert value() == setting.parse(in_flag)


def test_taps_come_from_one_layer(tmp_path: Path) -> None:
    """Taps of flags replace those of the environment, which replace those of the file; they are never mixed."""
    path = tmp_path / "config.yaml"
    path.write_text('tap: [{listen: ":1", upstream: "10.0.0.5:1"}]')
    environment = {"WEBSOCKET_EXPORTER_CONFIG_FILE": str(path)}
    assert [tap.listen.port for tap in load(environment=environment).tap] == [1]
    environment["WEBSOCKET_EXPORTER_TAP"] = " :2=10.0.0.5:2,target=a\n:3=unix:/run/x "
    assert [tap.listen.port for tap in load(environment=environment).tap] == [2, 3]
    assert [tap.listen.port for tap in load(taps=[":4=10.0.0.5:4"], environment=environment).tap] == [4]


def test_flag_overrules_a_number_by_auto(tmp_path: Path) -> None:
    """`auto` is a value like others: given by a flag it replaces the file's number."""
    text = "limits: {connections: 5000}"
    assert load_text(tmp_path, text).limits_connections == 5000
    assert load_text(tmp_path, text, **{"limits.connections": "auto"}).limits_connections is None


def test_environment_variable_names() -> None:
    """A variable is its flag in capitals, with _ for . and - and the product's name in front."""
    assert environment_variable("web.listen-address") == "WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS"
    assert [setting.variable for setting in SETTINGS][-1] == "WEBSOCKET_EXPORTER_SHUTDOWN_GRACE"


def test_foreign_variables_are_ignored() -> None:
    """Kubernetes sets WEBSOCKET_EXPORTER_PORT and others for a Service of that name: unknown variables are no fault."""
    injected = {
        "WEBSOCKET_EXPORTER_PORT": "tcp://10.96.0.7:11009",
        "WEBSOCKET_EXPORTER_SERVICE_HOST": "10.96.0.7",
        "WEBSOCKET_EXPORTER_SERVICE_PORT": "11009",
        "WEBSOCKET_EXPORTER_PORT_11009_TCP_ADDR": "10.96.0.7",
    }
    assert load(environment=injected) == load()


def test_faults_of_every_layer_are_reported() -> None:
    """A fault is named by the flag or the variable it came from, also where another layer wins."""
    assert faults(
        {"log.level": "info", "log.format": "yaml"},
        ("x", ":1=:2", "\x1b=\u202e"),
        {"WEBSOCKET_EXPORTER_LOG_LEVEL": "loud", "WEBSOCKET_EXPORTER_TAP": ":1=:2,target=a"},
    ) == [
        '--tap "x": expected LISTEN=UPSTREAM[,target=NAME]',
        '--tap ":1=:2": ":2" names no host to connect to',
        '--tap "\\u001b=\\u202e": "\\u001b" is not host:port',
        'WEBSOCKET_EXPORTER_TAP ":1=:2,target=a": ":2" names no host to connect to',
        'WEBSOCKET_EXPORTER_LOG_LEVEL: "loud" is not one of debug, info, warning, error',
        '--log.format: "yaml" is not one of auto, json, console',
    ]


@pytest.mark.parametrize(
    ("taps", "fault"),
    [
        ((TAP, TAP), f'--tap "{TAP}": ":8080" is already taken by --tap "{TAP}"'),
        (
            (":11009=10.0.0.5:1",),
            '--tap ":11009=10.0.0.5:1": ":11009" is already taken by the default of --web.listen-address',
        ),
        (
            ("127.0.0.1:1=127.0.0.1:1",),
            '--tap "127.0.0.1:1=127.0.0.1:1": "127.0.0.1:1" leads back to this tap: a loop',
        ),
    ],
)
def test_taps_of_flags_must_fit_together(taps: tuple[str, ...], fault: str) -> None:
    """Listeners given by flags are checked as those of the file are."""
    assert faults(taps=taps) == [fault]


@pytest.mark.parametrize(
    "taps",
    [
        ("127.0.0.1:1=10.0.0.5:1", "127.0.0.2:1=10.0.0.5:1"),
        ("0.0.0.0:1=10.0.0.5:1", "[::1]:1=10.0.0.5:1"),
        ("127.0.0.1:0=10.0.0.5:1", "127.0.0.1:0=10.0.0.5:1"),
        ("0.0.0.0:1=[::1]:1",),
        (":1=10.0.0.5:1",),
        ("127.0.0.1:1=127.0.0.1:2", "127.0.0.1:2=127.0.0.1:3"),
        (":1=unix:1",),
    ],
)
def test_addresses_that_only_look_alike_are_no_fault(taps: tuple[str, ...]) -> None:
    """Other hosts, other families, ports chosen by the kernel and chains of taps that end somewhere are fine."""
    assert len(load(taps=taps).tap) == len(taps)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost:1", "127.0.0.1:1"),
        ("[::1]:1", "[0:0:0:0:0:0:0:1]:1"),
        ("EXAMPLE.com:1", "example.com:1"),
        (":1", "[::1]:1"),
        ("[::]:1", "[fe80::1]:1"),
        ("[::]:1", "0.0.0.0:1"),
        ("0.0.0.0:1", "localhost:1"),
    ],
)
def test_spellings_of_one_address_are_one_socket(one: str, other: str) -> None:
    """The same socket in another spelling cannot be listened on twice, in either order."""
    for first, second in ((one, other), (other, one)):
        assert "is already taken by" in faults(taps=(f"{first}=10.0.0.5:1", f"{second}=10.0.0.5:1"))[0]


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [(":1", "0.0.0.0:1"), ("0.0.0.0:1", "127.0.0.9:1"), ("[::]:1", "127.0.0.1:1"), ("localhost:1", "127.0.0.1:1")],
)
def test_loops_by_other_spellings_are_found(listen: str, upstream: str) -> None:
    """A tap that reaches itself by a wildcard, a name or the unspecified address is a loop."""
    assert "a loop" in faults(taps=(f"{listen}={upstream}",))[0]


def test_a_loop_of_several_taps_is_reported_once() -> None:
    """A ring of taps is one fault, and a tap that only leads into the ring is none."""
    ring = ("127.0.0.1:9=127.0.0.1:1", "127.0.0.1:1=127.0.0.1:2", "127.0.0.1:2=127.0.0.1:3", "127.0.0.1:3=127.0.0.1:1")
    found = faults(taps=ring)
    assert found == [
        f'--tap "{ring[1]}": "127.0.0.1:2" leads back to this tap through --tap "{ring[2]}", --tap "{ring[3]}": a loop'
    ]


# -- single values


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", Address("", 8080)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("chat.internal_1.example:65535", Address("chat.internal_1.example", 65535)),
        ("[::]:80", Address("::", 80)),
    ],
)
def test_listen_addresses(text: str, address: Address) -> None:
    """An address is host:port, :port or a bracketed IPv6 address; as text it is what was given."""
    assert parse_listen(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["127.0.0.1:80", "[::1]:443", "unix:/run/app.sock", "unix:app.sock", "unix:" + "x" * 107]
)
def test_upstreams(text: str) -> None:
    """An upstream is a TCP address with host and port, or a Unix socket; as text it is what was given."""
    assert str(parse_upstream(text)) == text


@given(st.text() | st.integers() | st.booleans() | st.none())
def test_addresses_are_parsed_or_refused(value: object) -> None:
    """Any value is an address or a ValueError with one printable line."""
    for parse in (parse_listen, parse_upstream):
        try:
            outcome = str(parse(value))
        except ValueError as error:
            outcome = str(error)
        assert outcome.isprintable()
        assert outcome == value or quoted(value) in outcome


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected LISTEN=UPSTREAM[,target=NAME]"),
        ("127.0.0.1:9301", "expected LISTEN=UPSTREAM[,target=NAME]"),
        ("=127.0.0.1:9302", '"" is not host:port'),
        (":9301=", '"" is not host:port or unix:PATH'),
        (":9301=127.0.0.1:9302,", '"" is unknown; only target=NAME may follow the upstream'),
        (":9301=127.0.0.1:9302,name=x", '"name=x" is unknown; only target=NAME may follow the upstream'),
        (":9301=127.0.0.1:9302,target=", '"" is not a target name (1 to 64 of A-Z a-z 0-9 _ . -)'),
        (":9301=127.0.0.1:9302,target=a b", '"a b" is not a target name (1 to 64 of A-Z a-z 0-9 _ . -)'),
    ],
)
def test_faulty_tap_flags(text: str, fault: str) -> None:
    """Each fault of --tap is one sentence."""
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        parse_tap_flag(text)
    assert str(caught.value) == fault


def test_tap_flag() -> None:
    """--tap is LISTEN=UPSTREAM[,target=NAME]; a Unix path may contain an equals sign."""
    assert parse_tap_flag("127.0.0.1:9301=127.0.0.1:9302,target=x") == TapConfig(
        Address("127.0.0.1", 9301), Address("127.0.0.1", 9302), "x"
    )
    assert parse_tap_flag(":9301=unix:/run/a=b") == TapConfig(Address("", 9301), UnixPath("/run/a=b"), "default")


@pytest.mark.parametrize(
    ("value", "size"),
    [("1", 1), (512, 512), ("64B", 64), ("16KiB", 16384), ("1MiB", 1 << 20), ("2GiB", 2 << 30), (2**63 - 1, 2**63 - 1)],
)
def test_sizes(value: object, size: int) -> None:
    """Sizes are bytes, with binary units or none."""
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("25s", 25), ("2m", 120), ("500ms", 0.5), ("1h2m3s4ms", 3723.004), ("0", 0), ("0s", 0), ("24h", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are numbers with units, largest first; 0 needs none."""
    assert parse_duration(text) == seconds


@given(st.integers(0, 24 * 3600 * 1000))
def test_durations_are_shown_as_they_are_read(milliseconds: int) -> None:
    """What a message shows can be written into the file."""
    assert parse_duration(show_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    "value", ["", "s", "1", "1.5s", "-1s", "1s1m", "1 s", "9" * 5000 + "s", "\u0661s", True, None, []]
)
def test_what_is_no_duration(value: object) -> None:
    """Anything else is refused, whatever its length."""
    with pytest.raises(ValueError, match=r"is not a duration like 25s, 2m or 500ms$"):
        parse_duration(value)


@pytest.mark.parametrize("value", [1, 0, "1", "yes", "True", "", 1.0, None, []])
def test_what_is_no_boolean(value: object) -> None:
    """Only true and false are; 1 is not, although Python says so."""
    with pytest.raises(ValueError, match=r"is not true or false$"):
        parse_boolean(value)


@pytest.mark.parametrize(("text", "seconds"), [("1ms", 0.001), ("5s", 5), ("24h", 86400)])
def test_timeouts(text: str, seconds: float) -> None:
    """A timeout is a duration that is not nothing."""
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize("value", ["0", 0, "0s", "0m0s0ms"])
def test_no_time_is_no_timeout(value: object) -> None:
    """Zero would refuse every connection."""
    with pytest.raises(ValueError, match=r"^\S+ is shorter than 1ms$"):
        parse_timeout(value)


@pytest.mark.parametrize(
    ("value", "number"), [("auto", None), (1, 1), ("1", 1), ("0000009", 9), (1_000_000, 1_000_000)]
)
def test_connections(value: object, number: int | None) -> None:
    """A number of connections is a plain decimal number up to a million, or left to be derived."""
    assert parse_connections(value) == number


@pytest.mark.parametrize(
    "value", ["", "AUTO", "0", -1, 1_000_001, "1e3", "1_000", "5k", "\u0661", "9" * 5000, True, None, [], 1.5]
)
def test_what_is_no_number_of_connections(value: object) -> None:
    """Anything else is refused, whatever its length."""
    with pytest.raises(ValueError, match=r"is neither auto nor a number between 1 and 1000000$"):
        parse_connections(value)


@given(st.ip_addresses())
def test_source_addresses_are_ip_addresses(address: IPv4Address | IPv6Address) -> None:
    """Every address that something can be dialled from is taken in any spelling and kept in the shortest."""
    for text in (str(address), address.exploded.upper()):
        if address.is_unspecified or address.is_multicast or (address.version == 6 and address.is_link_local):
            with pytest.raises(ValueError, match="nothing can be dialled from it"):
                parse_source_address(text)
        else:
            assert parse_source_address(text) == str(address)


@given(st.text(max_size=200))
def test_quoted_text_is_one_plain_line(text: str) -> None:
    """Whatever text a message shows, it is printable ASCII of bounded length."""
    shown = quoted(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 6 * 2 * 80 + 2


# -- match


@pytest.mark.parametrize(
    ("match", "host", "path", "accepted"),
    [
        (Match(), "", "", True),
        (Match(host="chat.example.com"), "chat.example.com", "/", True),
        (Match(host="chat.example.com"), "CHAT.example.com:8443", "/", True),
        (Match(host="Chat.example.com"), "chat.example.com", "/", True),
        (Match(host="chat.example.com"), "xchat.example.com", "/", False),
        (Match(host="*.example.com"), "chat.example.com:80", "/", True),
        (Match(host="*.example.com"), "example.com", "/", False),
        (Match(host="[::1]"), "[::1]:8080", "/", True),
        (Match(path="/ws/*"), "any", "/ws/room/1", True),
        (Match(path="/ws/*"), "any", "/ws/", True),
        (Match(path="/ws/*"), "any", "/ws", False),
        (Match(path="/*/room/*/live"), "any", "/a/room/b/live", True),
        (Match(path="/*/room/*/live"), "any", "/a/room/live", False),
        (Match(path="/a*a"), "any", "/a", False),
        (Match(path="/WS"), "any", "/ws", False),
        (Match(path="/[ab]?"), "any", "/a", False),
        (Match("h", "/p"), "h", "/q", False),
        (Match("h", "/p"), "g", "/p", False),
    ],
)
def test_match(match: Match, host: str, path: str, accepted: bool) -> None:
    """Hosts match without port and case, paths exactly; `*` stands for any text and nothing else is special."""
    assert match.accepts(host, path) is accepted


@given(st.lists(st.sampled_from(["a", "b", "/", "*"]), max_size=8), st.text("ab/", max_size=12))
def test_patterns_mean_what_a_regular_expression_would(parts: list[str], text: str) -> None:
    """Matching agrees with the regular expression in which `*` is `.*`."""
    pattern = "".join(parts)
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
    assert Match(path=pattern).accepts("", text) is expected


def test_hostile_paths_do_not_take_long() -> None:
    """A path that almost matches many times costs no more than its length: a regular expression would take hours."""
    began = time.monotonic()
    assert not Match(path="*a" * 30 + "*b").accepts("", "a" * 60_000)
    assert time.monotonic() - began < 1


# -- reload


def replaced(**changes: object) -> Config:
    return msgspec.structs.replace(PLAIN, **changes)


def test_nothing_changed() -> None:
    """The same configuration again changes nothing and says nothing."""
    plan = diff_for_reload(PLAIN, load(taps=[TAP]))
    assert plan.config == PLAIN
    assert plan.kept == ()


def test_targets_and_log_level_are_reloadable() -> None:
    """Targets, new and old, and the log level change at once, without a word."""
    changed = Target(
        "default",
        codes=frozenset({4001}),
        client_key=KeyRule("forwarded"),
        trusted_proxies=(ip_network("10.0.0.0/8"),),
        client_builds=("acme-app/*",),
    )
    targets = {"default": changed, "new": Target("new", limits=Limits(1))}
    plan = diff_for_reload(PLAIN, replaced(targets=targets, log_level="debug"))
    assert dict(plan.config.targets) == targets
    assert plan.config.log_level == "debug"
    assert plan.kept == ()


def test_targets_are_matched_in_the_new_order() -> None:
    """The first match wins, so a reload takes the order that a restart would; what is gone comes last."""
    before = replaced(targets={name: Target(name) for name in ("default", "old", "a")})
    after = replaced(targets={name: Target(name) for name in ("b", "a", "default")})
    assert list(diff_for_reload(before, after).config.targets) == ["b", "a", "default", "old"]


def test_what_needs_a_restart_is_said_and_kept() -> None:
    """Every other change is refused with a sentence, and the old value stays in force."""
    new = load(
        {
            "web.listen-address": "127.0.0.1:1",
            "web.telemetry-path": "/m",
            "web.enable-lifecycle": "true",
            "log.format": "json",
            "limits.connections": "5000",
            "limits.connect-timeout": "1500ms",
            "shutdown.grace": "500ms",
        },
        ["[::1]:80=unix:/run/x,target=x"],
    )
    plan = diff_for_reload(PLAIN, new)
    assert plan.kept == (
        "web.listen-address stays :11009 until a restart; it is now configured as 127.0.0.1:1",
        "web.telemetry-path stays /metrics until a restart; it is now configured as /m",
        "web.enable-lifecycle stays false until a restart; it is now configured as true",
        "log.format stays auto until a restart; it is now configured as json",
        "limits.connections stays auto until a restart; it is now configured as 5000",
        "limits.connect-timeout stays 5s until a restart; it is now configured as 1500ms",
        "shutdown.grace stays 25s until a restart; it is now configured as 500ms",
        "tap :8080 keeps running until a restart; it is no longer configured",
        "tap [::1]:80 is new; it starts at the next restart",
        "target default keeps its settings and series until a restart; it is no longer configured",
    )
    assert msgspec.structs.replace(plan.config, targets=PLAIN.targets) == PLAIN
    assert set(plan.config.targets) == {"default", "x"}


def test_changed_tap_needs_a_restart() -> None:
    """A listener whose upstream or target changed keeps its old ones."""
    plan = diff_for_reload(PLAIN, load(taps=[":8080=10.0.0.6:1,target=x"]))
    assert plan.config.tap == PLAIN.tap
    assert plan.kept[0] == (
        "tap :8080 stays 10.0.0.5:8081 (target default) until a restart; it is now configured as 10.0.0.6:1 (target x)"
    )


def test_changed_source_addresses_need_a_restart() -> None:
    """Where only the addresses to dial from changed, the sentence shows them."""
    (tap,) = PLAIN.tap
    moved = msgspec.structs.replace(tap, source_addresses=("10.0.0.2", "10.0.0.3"))
    plan = diff_for_reload(PLAIN, replaced(tap=(moved,)))
    assert plan.config == PLAIN
    assert plan.kept == (
        "tap :8080 stays 10.0.0.5:8081 (target default) until a restart; "
        "it is now configured as 10.0.0.5:8081 (target default, from 10.0.0.2, 10.0.0.3)",
    )


def test_every_setting_is_reloadable_or_says_that_it_is_not() -> None:
    """No setting changes silently without effect."""
    for setting in SETTINGS:
        other = setting.parse(LAYERS[setting.name][0])
        new = replaced(**{setting.attribute: other})
        plan = diff_for_reload(PLAIN, new)
        assert (getattr(plan.config, setting.attribute) == other) is setting.reloadable
        assert (plan.kept == ()) is setting.reloadable


# -- warnings


@pytest.mark.parametrize(
    "upstream",
    ["127.0.0.1:8081", "127.9.9.9:1", "localhost:1", "[::1]:1", "0.0.0.0:1", "x.localhost:1", "[::ffff:7f00:1]:1"],
)
def test_tapping_over_loopback_is_risky(upstream: str) -> None:
    """A service dialled over loopback sees its own machine as its client, which some frameworks trust."""
    assert config.warnings(load(taps=[f"0.0.0.0:8080={upstream}"])) == (
        f"tap 0.0.0.0:8080 connects to {upstream} over loopback, so the service sees 127.0.0.1 as its client; "
        "a service that trusts loopback (for X-Forwarded-For, as uvicorn does by default, or for admin paths) must be "
        "tapped over the pod's own address or a Unix socket",
    )


@pytest.mark.parametrize("upstream", ["10.0.0.5:8081", "unix:/run/app.sock", "chat.internal:80", "[fe80::1]:1"])
def test_other_upstreams_are_not(upstream: str) -> None:
    """The pod's own address, a name and a Unix socket get no warning."""
    assert config.warnings(load(taps=[f"0.0.0.0:8080={upstream}"])) == ()


@pytest.mark.parametrize(("address", "warned"), [(":1", True), ("0.0.0.0:1", True), ("127.0.0.1:1", False)])
def test_open_reload_is_risky(address: str, warned: bool) -> None:
    """Reloading by HTTP is warned of where other machines can reach it."""
    found = config.warnings(load({"web.listen-address": address, "web.enable-lifecycle": "true"}))
    assert len(found) == warned
    assert all(f"{address} is reachable from other machines" in warning for warning in found)


TARGETS: Final = """\
targets:
  chat: {client_key: %s, trusted_proxies: [%s], client_builds: [%s]}
tap:
  - {listen: ":8080", upstream: "10.0.0.5:8081", target: chat}
"""


@pytest.mark.parametrize(
    ("key", "proxies", "builds", "expected"),
    [
        ("forwarded", "10.0.0.0/8, 0.0.0.0/1", "", ()),
        (
            "forwarded",
            "10.0.0.0/8, 0.0.0.0/0, '::/0'",
            "",
            tuple(
                f"targets.chat.trusted_proxies has {network}, which is everybody: any client can write "
                "X-Forwarded-For itself, and pass for another one each time"
                for network in ("0.0.0.0/0", "::/0")
            ),
        ),
        ("query:client", "", "", ()),
        ("header:a&b", "", "", ()),
        *(
            (
                f"'query:{name}'",
                "",
                "",
                (
                    f"targets.chat.client_key is query:{name}, but no parameter of a query has {never} in its name: "
                    "no client is recognised",
                ),
            )
            for name, never in {"a&b": "&", "a#": "#"}.items()
        ),
        ("remote_addr", "", '"okhttp/4*", "okhttp/*", "acme-*-app", "*bot*"', ()),
        ("remote_addr", "", '"okhttp/*", "a", "okhttp/*"', ('targets.chat.client_builds: "okhttp/*" is given twice',)),
        (
            "remote_addr",
            "",
            '"a", "okhttp/*", "okhttp/4.*", "*b*", "a*bc", "*"',
            (
                'targets.chat.client_builds: "okhttp/4.*" never counts: "okhttp/*" before it fits all that it fits',
                'targets.chat.client_builds: "a*bc" never counts: "*b*" before it fits all that it fits',
            ),
        ),
    ],
)
def test_settings_of_a_target_that_do_not_do_what_they_say(
    tmp_path: Path, key: str, proxies: str, builds: str, expected: tuple[str, ...]
) -> None:
    """Proxies that are everybody, query parameters that cannot be, builds that an earlier pattern takes."""
    file = tmp_path / "config.yaml"
    file.write_text(TARGETS % (key, proxies, builds))
    assert config.warnings(config.load({"config.file": str(file)})) == expected


@given(st.text("ab*", max_size=4), st.text("ab*", max_size=4), st.text("ab", max_size=5))
def test_a_pattern_that_covers_another_fits_all_that_it_fits(pattern: str, other: str, text: str) -> None:
    """Whatever `*` stands for."""
    if covers(pattern, other) and fits(other, text):
        assert fits(pattern, text)


def fits(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


# -- the reference


def test_reference_names_every_flag_variable_and_key() -> None:
    """docs/configuration.md has a row with flag, variable, key and default for every setting."""
    page = REFERENCE.read_text(encoding="utf-8")
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else "none"
        row = f"| `{setting.flag}` | `{setting.variable}` | `{setting.section}.{setting.key}` | {default} |"
        assert row in page
    for name in ("config.file", "tap", "capture"):
        assert f"| `--{name}` | `{environment_variable(name)}` |" in page


def test_reference_names_every_key_of_the_file() -> None:
    """Every key that a fault calls known is documented."""
    page = REFERENCE.read_text(encoding="utf-8")
    known = set()
    for path in TESTDATA.glob("*.txt"):
        for keys in re.findall(r"known keys are (.*)", path.read_text(encoding="utf-8")):
            known |= set(keys.split(", "))
    known |= {setting.key for setting in SETTINGS}
    assert {"targets", "going_away_codes", "upstream", "host", "server_to_client", "grace"} <= known
    assert [key for key in sorted(known) if not re.search(rf"`(?:[a-z_.]+\.)?{key}`", page)] == []


def test_example_of_the_reference_is_valid(tmp_path: Path) -> None:
    """The page's complete example is a configuration without faults that shows every section."""
    page = REFERENCE.read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    found = load_text(tmp_path, example)
    assert set(found.targets) == {"chat", "feed"}
    assert len(found.tap) == 2
    for section in ("targets", "tap", "capture", "capture_options", "web", "log", "limits", "shutdown"):
        assert re.search(rf"(?m)^{section}:", example)


def test_faults_of_the_reference_are_real() -> None:
    """The faults that the page shows are faults that are tested."""
    page = REFERENCE.read_text(encoding="utf-8")
    shown = re.findall(r"(?m)^[a-z_]+\.yaml: .*$", page)
    tested = {line for path in TESTDATA.glob("*.txt") for line in path.read_text(encoding="utf-8").splitlines()}
    assert shown
    assert set(shown) <= tested
