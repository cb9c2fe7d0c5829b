"""exporter-toolkit's web configuration file: what it may say, and the exact sentence for everything else."""

import contextlib
import datetime
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import bcrypt
import msgspec
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256

from exporter.config import ConfigError
from exporter.config.certificates import TlsFault, server_context
from exporter.config.web_file import RateLimit, TlsConfig, load_web_config, read_web_config, risks, stamp
from exporter.config.web_values import HEADERS, TLS_KEYS

TESTDATA: Final = Path(__file__).parent / "testdata" / "web_config"
FAULTY: Final = sorted(path.stem for path in TESTDATA.glob("*.yml"))
PLAIN: Final = "cert_file: server.pem, key_file: server.key"
HASH: Final = bcrypt.hashpw(b"correct horse battery staple", bcrypt.gensalt(4)).decode()


def weak_certificate(folder: Path) -> None:
    """One with an RSA key of 1024 bits, which TLS libraries refuse."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = datetime.datetime(2020, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now.replace(year=2090))
    (folder / "weak.pem").write_bytes(builder.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "weak.key").write_bytes(key_pem(key, serialization.NoEncryption()))


def key_pem(key: rsa.RSAPrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.fixture(scope="module")
def faulty_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faulty files, beside the certificates and keys that they name."""
    folder: Path = tmp_path_factory.mktemp("web")
    shutil.copytree(TESTDATA, folder, dirs_exist_ok=True)
    ca = trustme.CA()
    server, other = ca.issue_cert("server.test"), ca.issue_cert("other.test")
    write(folder, ca, server)
    other.private_key_pem.write_to_path(str(folder / "other.key"))
    weak_certificate(folder)
    encrypted = serialization.BestAvailableEncryption(b"secret")
    (folder / "encrypted.key").write_bytes(key_pem(rsa.generate_private_key(65537, 2048), encrypted))
    lines = (folder / "server.pem").read_text().splitlines(keepends=True)
    (folder / "damaged.pem").write_text("".join([*lines[:3], *lines[4:]]))
    return folder


def write(folder: Path, ca: trustme.CA, server: trustme.LeafCert) -> None:
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.key").chmod(0o600)


@pytest.fixture
def folder(tmp_path: Path, faulty_files: Path) -> Path:
    """A folder with a certificate, its key, and the authority that signed it."""
    for name in ("server.pem", "server.key", "ca.pem", "damaged.pem"):
        shutil.copy(faulty_files / name, tmp_path / name)
    return tmp_path


def load_text(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def tls(folder: Path, settings: str = "") -> TlsConfig:
    text = f"tls_server_config: {{{PLAIN}{', ' if settings else ''}{settings}}}"
    found = load_web_config(load_text(folder, text)).tls
    assert found is not None
    return found


# -- faults


@pytest.mark.parametrize("name", FAULTY)
def test_each_faulty_file_gets_its_exact_sentences(
    name: str, faulty_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fault is one line that names file, place and fault, as the text file beside it says."""
    monkeypatch.chdir(faulty_files)
    with pytest.raises(ConfigError) as caught:
        load_web_config(Path(f"{name}.yml"))
    assert "".join(f"{line}\n" for line in caught.value.faults) == Path(f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FAULTY)
def test_fault_lines_are_plain_and_show_no_secret(name: str) -> None:
    """Each line begins with the file's name, is printable ASCII, and shows no password, hash or key."""
    lines = (TESTDATA / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        assert line.startswith(f"{name}.yml: ")
        assert line.isascii()
        assert line.isprintable()
        for secret in ("horse", "secret,", "20481024", "apr1", "X0h1g"):
            assert secret not in line


def test_a_private_key_in_the_place_of_the_file_is_not_shown(folder: Path) -> None:
    """A path that was mixed up must not print what it leads to."""
    with pytest.raises(ConfigError) as caught:
        load_web_config(folder / "server.key")
    assert caught.value.faults == (f"{folder / 'server.key'}: expected a mapping",)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.write_bytes(b"\xff"), "line 1 is not UTF-8"),
        (lambda path: path.write_bytes(b"#" * (1 << 20) + b"\n"), "larger than 1 MiB"),
    ],
    ids=["missing", "folder", "pipe", "binary", "endless"],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """What is not a text file of reasonable size is named, and nothing waits for it."""
    path = tmp_path / "web.yml"
    make(path)
    reading = read_web_config(path)
    assert (reading.config, reading.faults) == (None, (f"cannot read {path}: {why}",))
    assert list(reading.files) == [path]


# -- what a file may say


@pytest.mark.parametrize(
    "text", ["", "{}", "# nothing\n", "tls_server_config:\nbasic_auth_users:\nhttp_server_config:\nrate_limit:\n"]
)
def test_an_empty_file_asks_for_nothing(tmp_path: Path, text: str) -> None:
    """As in the toolkit, what is left out is off."""
    config = load_web_config(load_text(tmp_path, text))
    assert (config.tls, config.users, config.headers, config.rate_limit) == (None, {}, {}, None)


def test_the_sample_of_the_toolkit_is_understood(folder: Path) -> None:
    """Every key of the format, with the values that its documentation gives."""
    config = load_web_config(
        load_text(
            folder,
            """\
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.test, 10.0.0.1]
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
    - TLS_AES_128_GCM_SHA256
  prefer_server_cipher_suites: true
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers:
    Content-Security-Policy: default-src 'none'
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 0
    Strict-Transport-Security: ""
basic_auth_users:
  alice: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi
  "\N{LATIN SMALL LETTER E WITH ACUTE}ve": $2a$12$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi
rate_limit:
  interval: 1m30.5s
  burst: 20
""",
        )
    )
    assert config.tls is not None
    assert config.tls.verifies_clients
    assert config.tls.allowed_sans == {"prometheus.test", "10.0.0.1"}
    assert (config.tls.min_version, config.tls.max_version) == ("TLS12", "TLS13")
    assert config.tls.ciphers == ("ECDHE-ECDSA-AES256-GCM-SHA384",)
    assert config.tls.curve == "prime256v1"
    assert list(config.users) == ["alice", "\N{LATIN SMALL LETTER E WITH ACUTE}ve"]
    assert config.users["alice"] == b"$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
    assert config.headers == {
        "Content-Security-Policy": "default-src 'none'",
        "X-Frame-Options": "deny",
        "X-Content-Type-Options": "nosniff",
        "X-XSS-Protection": "0",
    }
    assert config.rate_limit == RateLimit(90.5, 20)


@pytest.mark.parametrize(
    ("interval", "seconds"), [("1s", 1.0), ("100ms", 0.1), ("1h2m", 3720.0), ("250us", 0.00025), ("1.5s", 1.5)]
)
def test_intervals_are_durations_of_go(tmp_path: Path, interval: str, seconds: float) -> None:
    """Numbers with units, in any sequence."""
    config = load_web_config(load_text(tmp_path, f"rate_limit: {{interval: {interval}, burst: 1}}"))
    assert config.rate_limit is not None
    assert config.rate_limit.interval == pytest.approx(seconds)


@pytest.mark.parametrize("interval", ["0", "0s", '"0"'])
def test_no_interval_is_no_rate_limit(tmp_path: Path, interval: str) -> None:
    """0 turns the limit off, as the format says."""
    assert load_web_config(load_text(tmp_path, f"rate_limit: {{interval: {interval}, burst: 1}}")).rate_limit is None


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the exporter was started."""
    monkeypatch.chdir("/")
    (folder / "sub").mkdir()
    text = "tls_server_config: {cert_file: ../server.pem, key_file: ../server.key}"
    assert load_web_config(load_text(folder / "sub", text)).tls is not None


def test_certificate_and_key_may_stand_in_the_file_itself(folder: Path) -> None:
    """Inline PEM does as well as files do."""

    def inline(name: str) -> str:
        return "".join(f"    {line}\n" for line in (folder / name).read_text().splitlines())

    text = (
        f"tls_server_config:\n  cert: |\n{inline('server.pem')}  key: |\n{inline('server.key')}"
        f"  client_ca: |\n{inline('ca.pem')}  client_auth_type: VerifyClientCertIfGiven\n"
    )
    config = load_web_config(load_text(folder, text))
    assert config.tls == tls(folder, "client_ca_file: ca.pem, client_auth_type: VerifyClientCertIfGiven")
    assert list(config.files) == [folder / "web.yml"]
    assert config.secret_files == (folder / "web.yml",)


def test_text_around_a_certificate_does_not_matter(folder: Path) -> None:
    """What `openssl x509 -text` writes before it, in any language, is skipped (RFC 7468 section 2)."""
    pem = (folder / "server.pem").read_text()
    (folder / "server.pem").write_text(f"Zertifikat für den Exporter\n{pem}\nende\n", encoding="utf-8")
    assert tls(folder).min_version == "TLS12"


def test_certificate_and_key_may_share_a_file(folder: Path) -> None:
    """One PEM file with both is two names for the same file."""
    (folder / "both.pem").write_bytes((folder / "server.key").read_bytes() + (folder / "server.pem").read_bytes())
    path = load_text(folder, "tls_server_config: {cert_file: both.pem, key_file: both.pem}")
    assert list(load_web_config(path).files) == [path, folder / "both.pem"]


@pytest.mark.parametrize(
    ("client_auth", "mode", "verifies"),
    [
        ("NoClientCert", ssl.CERT_NONE, False),
        ("RequestClientCert", ssl.CERT_NONE, False),
        ("VerifyClientCertIfGiven, client_ca_file: ca.pem", ssl.CERT_OPTIONAL, False),
        ("RequireAndVerifyClientCert, client_ca_file: ca.pem", ssl.CERT_REQUIRED, True),
        ('""', ssl.CERT_NONE, False),
    ],
)
def test_client_auth_types(folder: Path, client_auth: str, mode: ssl.VerifyMode, verifies: bool) -> None:
    """Only RequireAndVerifyClientCert makes every client show who it is."""
    found = tls(folder, f"client_auth_type: {client_auth}")
    assert server_context(found).verify_mode == mode
    assert found.verifies_clients == verifies


def test_the_context_is_what_the_file_asks_for(folder: Path) -> None:
    """Versions, suites for TLS 1.2, and whose order of them counts."""
    suites = "cipher_suites: [TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA]"
    context = server_context(tls(folder, f"{suites}, min_version: TLS12, prefer_server_cipher_suites: false"))
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"] == [
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
    ]
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert server_context(tls(folder)).options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_suites_of_tls_13_alone_leave_no_tls_12(folder: Path) -> None:
    """As in Go, where those of TLS 1.3 are always offered and the list is for TLS 1.2."""
    found = tls(folder, "cipher_suites: [TLS_CHACHA20_POLY1305_SHA256]")
    assert (found.min_version, found.max_version) == ("TLS13", "TLS13")


@pytest.mark.parametrize("curve", ["CurveP256", "CurveP384", "CurveP521", "X25519"])
def test_every_curve_of_the_format_is_there(folder: Path, curve: str) -> None:
    """One of them may be asked for."""
    assert server_context(tls(folder, f"curve_preferences: [{curve}]"))


@pytest.mark.parametrize(
    ("lacking", "key"),
    [({"ciphers": ("ECDHE-RSA-ROT13",)}, "cipher_suites"), ({"curve": "brainpoolP13r1"}, "curve_preferences")],
)
def test_what_this_openssl_lacks_is_a_fault(folder: Path, lacking: dict[str, Any], key: str) -> None:
    """A system's policy may leave out what Go knows."""
    with pytest.raises(TlsFault) as caught:
        server_context(msgspec.structs.replace(tls(folder), **lacking))
    assert caught.value.key == key


# -- secrets and risks


def test_nothing_shows_a_key_or_a_hash(folder: Path) -> None:
    """A traceback may show a configuration: neither key nor hash stands in it."""
    path = load_text(folder, f"tls_server_config: {{{PLAIN}}}\nbasic_auth_users: {{alice: {HASH}}}")
    shown = f"{load_web_config(path)!r} {load_web_config(path).tls!r}"
    assert HASH not in shown
    assert "PRIVATE" not in shown
    assert shown.startswith(f"WebConfig('{path}', users=1, tls=True)")


def test_files_that_everybody_can_read_are_a_risk(folder: Path) -> None:
    """A key, and the file itself if it holds hashes, should be for their owner and group alone."""
    path = load_text(
        folder, f"tls_server_config: {{{PLAIN}}}\nbasic_auth_users: {{alice: {HASH.replace('$04', '$10')}}}"
    )
    config = load_web_config(path)
    assert risks(config) == ()
    for file in (path, folder / "server.key"):
        file.chmod(0o644)
    assert risks(config) == tuple(
        f"{file} holds a key or password hashes and can be read by every user of this machine"
        for file in (path, folder / "server.key")
    )
    (folder / "server.key").unlink()
    assert len(risks(config)) == 1


def test_passwords_without_tls_and_cheap_hashes_are_risks(tmp_path: Path) -> None:
    """Both work, and both are said."""
    path = load_text(tmp_path, f"basic_auth_users: {{alice: {HASH}}}")
    assert risks(load_web_config(path)) == (
        f"{path} has users but no tls_server_config: passwords cross the network in clear",
        f'{path}: the hash of user "alice" has a bcrypt cost below 10',
    )


def test_asking_for_certificates_that_nobody_looks_at_is_a_risk(folder: Path) -> None:
    """RequestClientCert sounds like more than it is."""
    path = load_text(folder, f"tls_server_config: {{{PLAIN}, client_auth_type: RequestClientCert}}")
    assert risks(load_web_config(path)) == (
        f"{path}: RequestClientCert lets every client in, whatever certificate it shows",
    )


# -- what was read


def test_every_file_that_was_read_is_stamped(folder: Path) -> None:
    """So that a change of any of them is seen: also of those that were faulty or missing."""
    path = load_text(
        folder,
        "tls_server_config: {cert_file: damaged.pem, key_file: nowhere.key, client_ca_file: ca.pem, "
        "client_auth_type: RequireAndVerifyClientCert}",
    )
    reading = read_web_config(path)
    assert reading.config is None
    assert reading.files == {
        file: stamp(file) for file in (path, folder / "damaged.pem", folder / "nowhere.key", folder / "ca.pem")
    }
    assert reading.files[folder / "nowhere.key"] is None


def test_a_stamp_changes_with_its_file(tmp_path: Path) -> None:
    """Its content, the file under its name, and whether there is any."""
    path, other = tmp_path / "a", tmp_path / "b"
    seen = {stamp(path)}
    path.write_text("one")
    seen.add(stamp(path))
    path.write_text("three")
    seen.add(stamp(path))
    os.utime(path, ns=(0, 0))
    seen.add(stamp(path))
    other.write_text("three")
    os.utime(other, ns=(0, 0))
    other.replace(path)
    seen.add(stamp(path))
    assert len(seen) == 5


# -- the page for operators

PAGE: Final = (Path(__file__).parent.parent / "docs" / "web-configuration.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.needs("openssl")
def test_the_documented_certificate_and_file_go_together(tmp_path: Path) -> None:
    """The command makes what the first example needs, and a client that trusts it knows the exporter by it."""
    command = next(block for block in blocks("sh") if block.startswith("openssl"))
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    config = load_web_config(load_text(tmp_path, blocks("yaml")[0]))
    assert config.tls is not None
    assert risks(config) == ()
    ends = ssl.create_default_context(cafile=str(tmp_path / "server.pem")), server_context(config.tls)
    shake_hands(*ends, "localhost")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].version() == ends[1].version() == "TLSv1.3"


def test_the_documented_password_command_makes_a_hash(tmp_path: Path) -> None:
    """Its output is one that the file takes, and it is that of the password."""
    command = next(block for block in blocks("sh") if "getpass" in block)
    code = command.partition("'")[2].rpartition("'")[0].replace("getpass.getpass()", "input()")
    made = subprocess.run([sys.executable, "-c", code], input="secret\n", capture_output=True, text=True, check=True)
    config = load_web_config(load_text(tmp_path, f"basic_auth_users: {{alice: {made.stdout.strip()}}}"))
    assert bcrypt.checkpw(b"secret", config.users["alice"])


def test_the_documented_client_certificates_are_a_sound_file(folder: Path) -> None:
    """The second example, with the files that it names."""
    config = load_web_config(load_text(folder, blocks("yaml")[1]))
    assert config.tls is not None
    assert config.tls.verifies_clients


@pytest.mark.needs("promtool")
def test_the_documented_scrape_configuration_is_sound(tmp_path: Path, folder: Path) -> None:
    """Prometheus' own tool takes it."""
    (tmp_path / "prometheus.yml").write_text(blocks("yaml")[2])
    for given, wanted in {"server.pem": "prometheus.pem", "server.key": "prometheus.key"}.items():
        shutil.copy(folder / given, tmp_path / wanted)
    (tmp_path / "password").write_text("secret")
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_the_documented_fault_lines_are_real() -> None:
    """Each of them is a line of the test data, but for names."""
    known = {
        line.partition(": ")[2].replace(".alice:", ".prometheus:").replace("other.key", "server.key")
        for name in FAULTY
        for line in (TESTDATA / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    }
    shown = [line.partition(": ")[2] for line in PAGE.splitlines() if line.startswith("web.yml: ")]
    assert len(shown) == 2
    assert set(shown) <= known


@pytest.mark.parametrize("key", [*TLS_KEYS, *HEADERS, "basic_auth_users", "http2", "interval", "burst"])
def test_every_key_is_documented(key: str) -> None:
    """Each key that a file may have stands on the page."""
    assert re.search(rf"`[^`]*\b{re.escape(key)}\b[^`]*`", PAGE)
