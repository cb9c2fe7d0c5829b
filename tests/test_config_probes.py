"""What is probed, as it is configured. Faulty files are among those of tests/testdata/config."""

import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from exporter import config
from exporter.config import Address, Config, ConfigError, Target, diff_for_reload, load
from exporter.config.probes import ProbeConfig, ProbeTls, Text, Url, header_value, parse_probe_flag, parse_url

URL = "ws://127.0.0.1:8081/ws"
CHAT = Url(False, Address("127.0.0.1", 8081), "127.0.0.1:8081", "/ws")


def load_text(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load({"config.file": str(path)})


def faults(*probes: str, environment: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load({}, [], {"WEBSOCKET_EXPORTER_PROBE": environment}, probes)
    return list(caught.value.faults)


# -- good input


def test_every_key_is_read(tmp_path: Path) -> None:
    """A probe with every key has every value; files stay files, to be read at each connection."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("probe@exporter.test")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "token").write_text("Bearer x\n")
    text = f"""
targets: {{chat: , feed: }}
probe:
  - target: chat
    url: wss://Chat.example.com/ws?room=1
    interval: 1m
    timeout: 5s
    hold: 10m
    subprotocols: [graphql-transport-ws, graphql-ws]
    headers: {{Authorization: {{file: {tmp_path}/token}}, Origin: "https://example.com", X-Number: 7}}
    tls:
      ca_file: {tmp_path}/ca.pem
      cert_file: {tmp_path}/cert.pem
      key_file: {tmp_path}/key.pem
      server_name: chat.internal
      insecure_skip_verify: false
    send: '{{"type": "connection_init"}}'
    expect: '"type":\\s*"connection_ack"'
    max_message_size: 16KiB
  - {{target: feed, url: "ws://[::1]:80", hold: forever}}
"""
    chat, feed = load_text(tmp_path, text).probe
    assert chat == ProbeConfig(
        target="chat",
        url=Url(True, Address("Chat.example.com", 443), "Chat.example.com", "/ws", "?room=1"),
        interval=60.0,
        timeout=5.0,
        hold=600.0,
        subprotocols=("graphql-transport-ws", "graphql-ws"),
        headers=(
            ("Authorization", Text(file=tmp_path / "token")),
            ("Origin", Text("https://example.com")),
            ("X-Number", Text("7")),
        ),
        tls=ProbeTls(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem", "chat.internal"),
        send=Text('{"type": "connection_init"}'),
        expect=r'"type":\s*"connection_ack"',
        max_message_size=16384,
    )
    assert feed == ProbeConfig("feed", Url(False, Address("::1", 80), "[::1]:80", "/"))


def test_defaults() -> None:
    """A probe pings every 20 s, waits 10 s for answers, holds for ever and takes messages of 1 MiB."""
    found = parse_probe_flag(f"chat={URL}")
    assert found == ProbeConfig("chat", CHAT)
    assert (found.interval, found.timeout, found.hold, found.max_message_size) == (20.0, 10.0, None, 1 << 20)


def test_probes_define_their_targets(tmp_path: Path) -> None:
    """A probe needs no targets section, and its target is no other than the tap's of that name."""
    assert dict(load(probes=[f"chat={URL}"]).targets) == {"chat": Target("chat")}
    both = load(taps=[":8080=10.0.0.5:1,target=chat"], probes=[f"chat={URL}", f"feed={URL}"])
    assert list(both.targets) == ["chat", "feed"]
    assert not both.targets_listed


def test_probes_come_from_one_layer(tmp_path: Path) -> None:
    """Probes of flags replace those of the environment, which replace those of the file."""
    path = tmp_path / "config.yaml"
    path.write_text(f"probe: [{{target: file, url: '{URL}'}}]")
    environment = {"WEBSOCKET_EXPORTER_CONFIG_FILE": str(path)}
    assert [probe.target for probe in load(environment=environment).probe] == ["file"]
    environment["WEBSOCKET_EXPORTER_PROBE"] = f" a={URL}\nb={URL}?x=1,2 "
    found = load(environment=environment).probe
    assert [(probe.target, probe.url.full) for probe in found] == [("a", URL), ("b", f"{URL}?x=1,2")]
    assert [probe.target for probe in load(environment=environment, probes=[f"c={URL}"]).probe] == ["c"]


@pytest.mark.parametrize(
    ("text", "secure", "address", "full"),
    [
        ("ws://a", False, Address("a", 80), "ws://a/"),
        ("WSS://a?x", True, Address("a", 443), "wss://a/?x"),
        ("ws://a:81/b/c@d?e=f", False, Address("a", 81), "ws://a:81/b/c@d?e=f"),
        ("wss://[::1]/x", True, Address("::1", 443), "wss://[::1]/x"),
        ("ws://unix:80/", False, Address("unix", 80), "ws://unix:80/"),
    ],
)
def test_urls(text: str, secure: bool, address: Address, full: str) -> None:
    """The port is that of the scheme unless given, the path is / unless given; what is shown has no query."""
    url = parse_url(text)
    assert (url.secure, url.address, url.full) == (secure, address, full)
    assert str(url) == full.partition("?")[0]


def test_a_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    """Text from a file is what the file has now, without the last line's end."""
    path = tmp_path / "token"
    for content, text in (("a\n", "a"), ("b\r\n", "b"), ("c\n\n", "c\n"), ("d", "d")):
        path.write_bytes(content.encode())
        assert Text(file=path).read() == text
    path.unlink()
    with pytest.raises(ValueError, match=r"^cannot read .*token: no such file$"):
        Text(file=path).read()


@pytest.mark.parametrize("key", ["hold", "expect", "send", "tls", "headers", "subprotocols"])
@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_an_option_without_a_value_is_not_given(tmp_path: Path, key: str, nothing: str) -> None:
    """An option that is there and empty is as one that is not there."""
    found = load_text(tmp_path, f"probe:\n  - target: chat\n    url: {URL}\n    {key}: {nothing}\n")
    assert found.probe == (ProbeConfig("chat", CHAT),)


@pytest.mark.parametrize("key", ["target", "url", "interval", "timeout", "max_message_size"])
def test_other_options_need_a_value(tmp_path: Path, key: str) -> None:
    """What a probe always has cannot be nothing."""
    given = {"target": "chat", "url": URL} | {key: "null"}
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, "probe:\n  - " + "\n    ".join(f"{name}: {value}" for name, value in given.items()))
    assert caught.value.faults == (f"{tmp_path}/config.yaml: probe[0].{key}: no value",)


def test_text_that_cannot_be_sent(tmp_path: Path) -> None:
    """Half of a surrogate pair, which JSON and YAML can spell, is refused and not repeated."""
    text = f'probe: [{{target: a, url: "{URL}", send: "\\ud800 canary", headers: {{X-A: "canary \\udc00"}}}}]'
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    fault = "the text has half of a surrogate pair, which UTF-8 cannot carry"
    file = f"{tmp_path}/config.yaml"
    assert sorted(caught.value.faults) == [f"{file}: probe[0].headers.X-A: {fault}", f"{file}: probe[0].send: {fault}"]


def test_an_encrypted_key_is_a_fault(tmp_path: Path) -> None:
    """A key that needs a password is refused; nobody is asked for one."""
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n")
    certificate = tmp_path / "cert.pem"
    trustme.CA().issue_cert("probe@exporter.test").cert_chain_pems[0].write_to_path(certificate)
    with pytest.raises(ValueError, match=r"^cannot use \".*key\.pem\": "):
        ProbeTls(cert_file=certificate, key_file=key).context()


def test_a_key_of_another_certificate_is_a_fault(tmp_path: Path) -> None:
    """Certificate and key have to belong together."""
    one, other = trustme.CA().issue_cert("a@exporter.test"), trustme.CA().issue_cert("b@exporter.test")
    one.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    other.private_key_pem.write_to_path(tmp_path / "key.pem")
    with pytest.raises(ValueError, match=r"^cannot use \".*key\.pem\": key values mismatch$"):
        ProbeTls(cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem").context()


# -- bad input


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", '--probe "": expected NAME=URL'),
        ("ws://a", '--probe "ws://a": expected NAME=URL'),
        ("=ws://a", '--probe "=ws://a": "" is not a target name (1 to 64 of A-Z a-z 0-9 _ . -)'),
        ("chat=", '--probe "chat=": "" is not a ws:// or wss:// URL'),
        ("chat=http://a", '--probe "chat=http://a": "http://a" is not a ws:// or wss:// URL'),
        (
            "chat=wss://me:secret@a/?token=secret",
            '--probe "chat=...@a/?...": "wss://...@a/?..." has a user name or password; '
            "an Authorization header can be read from a file",
        ),
        (
            "chat=wss://a/#token=secret",
            '--probe "chat=wss://a/#...": "wss://a/#..." has a fragment (#), '
            "which a WebSocket URL cannot have (RFC 6455 section 3)",
        ),
        (
            "chat=wss://a/?token=secret#b",
            '--probe "chat=wss://a/?...": "wss://a/?..." has a fragment (#), '
            "which a WebSocket URL cannot have (RFC 6455 section 3)",
        ),
    ],
)
def test_faulty_flags(text: str, fault: str) -> None:
    """Each fault of --probe is one sentence, in which no secret stands."""
    assert faults(text) == [fault]
    if text:
        variable = fault.replace("--probe", "WEBSOCKET_EXPORTER_PROBE", 1)
        assert faults(environment=text) == [variable]


def test_a_target_is_probed_once() -> None:
    """Two probes of one target would be two connections to it, and one series."""
    assert faults(f"a={URL}", f"b={URL}", f"a={URL}?x") == [
        f'--probe "a={URL}?...": "a" is probed already by --probe "a={URL}"'
    ]


def test_flags_must_name_a_target_of_the_file(tmp_path: Path) -> None:
    """Where targets are defined, a probe's target is one of them."""
    path = tmp_path / "config.yaml"
    path.write_text("targets: {chat: }")
    with pytest.raises(ConfigError) as caught:
        load({"config.file": str(path)}, probes=[f"chats={URL}"])
    assert caught.value.faults == (f'--probe "chats={URL}": "chats" is not one of the targets: chat',)


@given(st.one_of(st.text(max_size=100), st.text(max_size=30).map("ws://".__add__)))
def test_any_text_is_a_url_or_a_plain_fault(text: str) -> None:
    """Whatever is given is taken, or refused with a printable sentence."""
    fault = refusal(parse_url, text)
    assert fault.isascii()
    assert fault.isprintable()


def refusal(parse: Callable[[str], object], text: str) -> str:
    """The sentence of a refusal; empty if there is none."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


@given(st.text(st.characters(exclude_characters="@?#/"), min_size=1), st.text(min_size=1))
def test_secrets_are_in_no_fault(password: str, token: str) -> None:
    """Neither a password nor a query gets into a message, whatever characters they have."""
    marked = f"canary{password}"
    with pytest.raises(ConfigError) as caught:
        load(probes=[f"chat=wss://user:{marked}@a/?token=canary{token}"])
    assert "canary" not in str(caught.value)


@given(st.one_of(st.text(max_size=50), st.text(st.characters(codec="ascii"), max_size=20)))
def test_header_values_cannot_break_out(text: str) -> None:
    """What passes is one line of printable ASCII without spaces around it; what does not is not repeated."""
    sound = text == text.strip(" \t") and all(" " <= character <= "~" or character == "\t" for character in text)
    expected = "" if sound else "the value is not one line of printable ASCII without spaces around it"
    assert refusal(header_value, text) == expected


# -- reload and risks


def test_probes_change_at_a_restart() -> None:
    """A reload keeps the probes that run, and says what it did not change."""
    before = load(probes=[f"a={URL}", f"b={URL}", f"c={URL}"])
    after = load(probes=[f"a={URL}", f"b={URL}2", f"d={URL}"])
    plan = diff_for_reload(before, after)
    assert plan.config.probe == before.probe
    assert plan.kept == (
        "probe b keeps its settings until a restart; it is now configured with others",
        "probe c keeps running until a restart; it is no longer configured",
        "probe d is new; it starts at the next restart",
        "target c keeps its settings and series until a restart; it is no longer configured",
    )
    assert set(plan.config.targets) == {"a", "b", "c", "d"}


def test_a_secret_that_is_renewed_is_no_change(tmp_path: Path) -> None:
    """The content of a header's file is no part of the configuration."""
    token = tmp_path / "token"
    text = f"probe: [{{target: a, url: '{URL}', headers: {{Authorization: {{file: {token}}}}}}}]"
    token.write_text("a")
    before = load_text(tmp_path, text)
    token.write_text("b")
    assert diff_for_reload(before, load_text(tmp_path, text)).kept == ()


def test_certificates_that_are_not_checked_are_risky() -> None:
    """A probe that takes any certificate is warned of."""
    probe = msgspec.structs.replace(parse_probe_flag("a=wss://a/"), tls=ProbeTls(insecure_skip_verify=True))
    assert config.warnings(msgspec.structs.replace(load(), probe=(probe,))) == (
        "probe a does not check the service's certificate: it would not notice one that has expired, and gives what "
        "it sends to whoever answers",
    )


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o600, False), (0o640, False)])
@pytest.mark.parametrize("header", ["Authorization", "COOKIE", "X-Other"])
def test_secrets_that_others_can_read_are_risky(tmp_path: Path, header: str, mode: int, warned: bool) -> None:
    """A credential in a file that everybody can read is warned of, without its value."""
    found = load_text(tmp_path, f"probe: [{{target: a, url: '{URL}', headers: {{{header}: canary}}}}]")
    (tmp_path / "config.yaml").chmod(mode)
    assert bool((tmp_path / "config.yaml").stat().st_mode & stat.S_IROTH) == warned
    expected = f"probe a has {header} in a configuration file that others can read; " + (
        "headers can be read from a file of their own: {file: PATH}"
    )
    assert config.warnings(found) == ((expected,) if warned and header != "X-Other" else ())
