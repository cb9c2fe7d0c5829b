"""The command line: what was asked for on standard output, or status 2 and exact sentences on standard error."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from exporter import __version__, cli, codes
from exporter.config import SETTINGS

ROOT: Final = Path(__file__).parent.parent
REFERENCE: Final = ROOT / "docs" / "configuration.md"
TESTDATA: Final = Path(__file__).parent / "testdata" / "config"
TAP: Final = "--tap=127.0.0.1:0=10.255.255.1:9302"
NOTHING: Final = (
    "nothing to monitor: give --tap=LISTEN=UPSTREAM, --capture=INTERFACE:PORT, --probe=NAME=URL, "
    "--webhook.listen-address=ADDRESS, or "
    "--config.file=FILE with such a section; see --help"
)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("WEBSOCKET_EXPORTER_"):
            monkeypatch.delenv(name)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What is said about bad input, without the program's name; asserts status 2 and an empty standard output."""
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert all(line.startswith("websocket-exporter: ") for line in lines)
    return [line.removeprefix("websocket-exporter: ") for line in lines]


def answered(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "exporter", *words]
    defaults: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(command, **(defaults | options))


@contextlib.contextmanager
def started(*words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    with start(*words, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


# -- bad input


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--foo"], "unknown flag --foo; see --help"),
        (["--foo=1", TAP], "unknown flag --foo; see --help"),
        (["run", "--foo"], "unknown flag --foo; see --help"),
        (["-x"], "unknown flag -x; see --help"),
        (["--web.listen", ":1"], "unknown flag --web.listen; see --help"),
        (["--\x1b[31m"], 'unknown flag "--\\u001b[31m"; see --help'),
        (["foo"], "unknown command foo; commands are run, demo, capture-exec, check-config, codes, health, assets"),
        ([""], 'unknown command ""; commands are run, demo, capture-exec, check-config, codes, health, assets'),
        (
            ["a b\n"],
            'unknown command "a b\\n"; commands are run, demo, capture-exec, check-config, codes, health, assets',
        ),
        (["--log.level"], "flag --log.level needs a value; see --help"),
        (["--tap", "--log.level=info"], "flag --tap needs a value; see --help"),
        (["--web.enable-lifecycle=true"], "flag --web.enable-lifecycle takes no value; see --help"),
        (["--log.level=info", "demo"], "unexpected argument demo; see --help"),
        ([], NOTHING),
        (["run"], NOTHING),
        (["--tap=x"], '--tap "x": expected LISTEN=UPSTREAM[,target=NAME]'),
        ([TAP, "--log.level=loud"], '--log.level: "loud" is not one of debug, info, warning, error'),
        ([TAP, "--web.listen-address=:x"], '--web.listen-address: ":x" is not a port between 0 and 65535'),
        ([TAP, "--shutdown.grace", "25"], '--shutdown.grace: "25" is not a duration like 25s, 2m or 500ms'),
        (
            [TAP, "--limits.connections=none"],
            '--limits.connections: "none" is neither auto nor a number between 1 and 1000000',
        ),
        ([TAP, "--limits.connect-timeout=0"], '--limits.connect-timeout: "0" is shorter than 1ms'),
        ([TAP, "--config.file=/no/such"], "cannot read /no/such: no such file"),
        (["--capture=eth0"], '--capture "eth0": expected INTERFACE:PORT[,target=NAME]'),
        (["capture-exec"], "capture-exec needs a --capture; see --help"),
        (["capture-exec", "--", "ls"], "capture-exec needs a --capture; see --help"),
        (["capture-exec", "--capture=lo:80"], "capture-exec needs a COMMAND behind --; see --help"),
        (["capture-exec", "--capture=lo:80", "ls"], "unexpected argument ls; see --help"),
        (["capture-exec", "--capture=lo:0", "--", "ls"], '--capture "lo:0": "0" is not a port between 1 and 65535'),
        (["check-config"], "check-config needs a FILE; see --help"),
        (["check-config", "a", "b"], "unexpected argument b; see --help"),
        (["codes", "x"], "x is not a close code; give a number such as 1009"),
        (["codes", "-5"], "-5 is not a close code; give a number such as 1009"),
        (
            ["codes", "\u0661\u0660\u0660\u0669"],
            '"\\u0661\\u0660\\u0660\\u0669" is not a close code; give a number such as 1009',
        ),
        (["codes", "65536"], str(codes.UnknownCode(65536))),
        (["codes", "1001", "65536"], str(codes.UnknownCode(65536))),
        (["codes", "1", "2", "3"], "codes takes two codes at most; see --help"),
        (["assets"], "assets needs --out DIR; see --help"),
        (["assets", "--out="], "assets needs --out DIR; see --help"),
        (["health", "http://a..b/"], "http://a..b/ is not a URL"),
        (["demo", "--web.listen-address=x"], '--web.listen-address: "x" is not host:port'),
        (["demo", "--tap=x"], "unknown flag --tap; see --help"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    """Bad input ends with status 2 and one exact sentence, never a usage text or a traceback."""
    assert refused(capsys, *words) == [sentence]


def test_every_fault_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several faults are several lines: of the file, the environment and the flags."""
    monkeypatch.chdir(TESTDATA)
    monkeypatch.setenv("WEBSOCKET_EXPORTER_LOG_FORMAT", "xml")
    assert refused(capsys, "--config.file=boolean.yaml", "--log.level=loud") == [
        'boolean.yaml: web.enable_lifecycle: "yes" is not true or false',
        '--log.level: "loud" is not one of debug, info, warning, error',
        'WEBSOCKET_EXPORTER_LOG_FORMAT: "xml" is not one of auto, json, console',
    ]


# -- help and version


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version is the program's name and version."""
    assert answered(capsys, "--version") == f"websocket-exporter {__version__}\n"


def test_help_names_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """--help has every flag, its default, and every command."""
    text = " ".join(answered(capsys, "--help").split())
    assert answered(capsys, "run", "-h").split() == text.split()
    for setting in SETTINGS:
        assert f"{setting.flag} " in text or f"{setting.flag}, " in text
        assert setting.help + (f" (default {setting.default})" if setting.default else "") in text
    for command in (
        "run",
        "demo",
        "capture-exec ... -- COMMAND",
        "check-config FILE",
        "codes [CODE [CODE]]",
        "health [URL]",
        "assets --out DIR",
    ):
        assert f" {command} " in text


@pytest.mark.parametrize("command", ["demo", "capture-exec", "check-config", "codes", "health", "assets"])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Each command has a --help of its own, whatever else is missing."""
    assert answered(capsys, command, "--help").startswith(f"usage: websocket-exporter {command} ")


def test_flags_of_the_help_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag and command of the help is in docs/configuration.md."""
    page = REFERENCE.read_text(encoding="utf-8")
    flags = set(re.findall(r"--[a-z.-]+[a-z]", answered(capsys, "--help"))) - {"--help", "--version"}
    assert {"--tap", "--config.file", "--no-web.enable-lifecycle", "--out"} <= flags
    assert [flag for flag in sorted(flags) if flag not in page] == []
    assert [name for name in cli._COMMANDS if f"`websocket-exporter {name}" not in page and name != "run"] == []


# -- the commands that print


def test_codes_lists_describes_and_compares(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a code all are listed, one is described, two stand side by side."""
    assert "1009" in answered(capsys, "codes")
    assert answered(capsys, "codes", "1009").startswith("1009 Message Too Big")
    both = answered(capsys, "codes", "1001", "1009")
    assert "1001 Going Away" in both
    assert "1009 Message Too Big" in both


@pytest.mark.parametrize(("columns", "widest"), [("70", 70), ("500", 110), ("100", 100)])
def test_codes_fit_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str, widest: int
) -> None:
    """Text is as wide as the terminal, up to a width that can still be read."""
    monkeypatch.setenv("COLUMNS", columns)
    assert max(map(len, answered(capsys, "codes", "1001", "1009").splitlines())) <= widest


def test_valid_file_is_said_to_be_valid(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """check-config reads the file alone: a faulty environment does not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEBSOCKET_EXPORTER_LOG_LEVEL", "loud")
    Path("good.yaml").write_text('targets: {a: , b: }\ntap: [{listen: ":8080", upstream: "unix:/x", target: a}]')
    assert (
        answered(capsys, "check-config", "good.yaml")
        == "good.yaml: valid; taps: 1; captures: 0; probes: 0; targets: a, b\n"
    )


def test_risky_file_is_warned_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A risk is a warning on standard error and status 0."""
    monkeypatch.chdir(tmp_path)
    Path("risky.yaml").write_text('tap: [{listen: ":8080", upstream: "127.0.0.1:8081"}]')
    assert cli.main(["check-config", "risky.yaml"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "risky.yaml: valid; taps: 1; captures: 0; probes: 0; targets: default\n"
    assert re.fullmatch(
        r"risky\.yaml: warning: tap :8080 connects to 127\.0\.0\.1:8081 over loopback.*\n", captured.err
    )


def test_faulty_file_is_told_line_by_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """check-config prints the faults alone, each beginning with the file's name as it was given."""
    monkeypatch.chdir(TESTDATA)
    assert cli.main(["check-config", "several.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == Path("several.txt").read_text()


def test_assets_are_written_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """assets --out prints each file that it wrote."""
    written = answered(capsys, "assets", "--out", str(tmp_path / "out")).splitlines()
    assert {tmp_path / "out" / "alerts" / "rules" / "websocket.yaml"} <= {Path(line) for line in written}
    assert all(Path(line).is_file() for line in written)


def test_assets_into_a_file_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where no folder can be made, the sentence names both the folder and the reason."""
    (tmp_path / "file").write_text("")
    (sentence,) = refused(capsys, "assets", "--out", f"{tmp_path}/file/out")
    assert sentence.startswith(f"cannot write the assets to {tmp_path}/file/out: not a directory: {tmp_path}/file/")


# -- health


def test_unhealthy_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """An exporter that does not answer is unhealthy: status 1 and a sentence."""
    assert cli.main(["health", "http://127.0.0.1:1/-/healthy"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "websocket-exporter: http://127.0.0.1:1/-/healthy refused the connection\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (None, "http://127.0.0.1:11009/-/healthy"),
        ("", "http://127.0.0.1:11009/-/healthy"),
        (":9303", "http://127.0.0.1:9303/-/healthy"),
        ("0.0.0.0:9303", "http://127.0.0.1:9303/-/healthy"),
        ("[::]:9303", "http://[::1]:9303/-/healthy"),
        ("10.0.0.5:9303", "http://10.0.0.5:9303/-/healthy"),
    ],
)
def test_health_asks_where_the_environment_says(address: str | None, url: str) -> None:
    """The container's health check follows the variable that moves the listener; wildcards are asked over loopback."""
    environment = {} if address is None else {"WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS": address}
    assert cli._health_url(environment, "http://127.0.0.1:11009/-/healthy") == url


# -- the process


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["codes"], 0),
        (["codes", "1001", "1009"], 0),
        (["health", "http://127.0.0.1:1/"], 1),
        (["check-config", str(TESTDATA / "loop.yaml")], 2),
        (["--help"], 0),
        (["--foo"], 2),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_small_commands_load_nothing_heavy(words: list[str], status: int) -> None:
    """Commands that relay nothing start quickly: no event loop, no web server, no WebSocket library, no rich."""
    program = (
        "import sys; from exporter.cli import main; status = main(sys.argv[1:])\n"
        "heavy = set('uvloop asyncio starlette uvicorn websockets rich structlog prometheus_client'.split())\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); sys.exit(status)"
    )
    command = [sys.executable, "-c", program, *words]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (found.returncode, "Traceback" in found.stderr) == (status, False), found.stderr


def test_reader_that_leaves_is_no_fault() -> None:
    """`codes | head -1` ends with status 0 and without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    with started("codes", stdout=writer) as process:
        os.close(writer)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, "")


def test_full_disk_is_one_sentence() -> None:
    """Output that cannot be written is a sentence, also at exit."""
    with open("/dev/full", "w") as full, started("codes", stdout=full) as process:
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (
        2,
        "websocket-exporter: cannot write to standard output: no space left on device\n",
    )


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_full_or_missing_streams_do_not_change_the_status(stream: str) -> None:
    """A closed standard stream is nothing to fail for."""
    close = {"stdout": 1, "stderr": 2}[stream]
    for words, status in ((["codes"], 0), (["--foo"], 2)):
        command = ["sh", "-c", f'exec "$@" {close}>&-', "sh", sys.executable, "-m", "exporter", *words]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert found.returncode == status
        assert "Traceback" not in found.stderr


def test_closed_standard_error_is_never_a_socket() -> None:
    """Without standard error its number stays reserved: else the log would be written to the first client."""
    program = (
        "import os; from exporter.cli import _open_standard_descriptors as reserve\n"
        "os.close(0); os.close(2); reserve()\n"
        "devices = [os.fstat(n).st_rdev for n in (0, 2)]; null = os.stat(os.devnull).st_rdev\n"
        "print(devices == [null, null], os.open(os.devnull, os.O_RDONLY) > 2)"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout == "True True\n"


def test_output_fits_any_encoding() -> None:
    """A terminal that cannot show a character gets a question mark, not a traceback."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    with started("codes", "1001", "1009", env=environment) as process:
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, "")
    assert stdout.isascii()


def test_interrupt_is_quiet() -> None:
    """Ctrl-C ends with the shell's status for it, 130, and without a traceback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        started("health", f"http://127.0.0.1:{silent.getsockname()[1]}/") as process,
    ):
        client, _ = silent.accept()  # the program waits for its answer now
        with client:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "")


# -- running


class Running:
    """A running exporter, watched through its log."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    def events(self, wanted: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if line["event"] == wanted]

    def wait_for(self, wanted: str, times: int = 1) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while len(found := self.events(wanted)) < times:
            assert time.monotonic() < deadline, f"{wanted!r} was not logged {times} times:\n{self.log.read_text()}"
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        return found[times - 1]

    @property
    def web(self) -> str:
        return str(self.wait_for("metrics listening")["address"])

    @property
    def tap(self) -> str:
        return str(self.wait_for("tap listening")["address"])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts exporters; ends what is left of them."""
    with contextlib.ExitStack() as processes:

        def begin(*words: str, environment: Mapping[str, str] | None = None) -> Running:
            log = tmp_path / f"{len(list(tmp_path.glob('*.stderr')))}.stderr"
            with log.open("w") as stderr:
                process = processes.enter_context(
                    started(*words, stderr=stderr, env={**os.environ, **(environment or {})})
                )
            return Running(process, log)

        yield begin


def test_run_serves_until_it_is_told_to_stop(run: Callable[..., Running]) -> None:
    """The exporter runs with nothing but a tap, is healthy, and ends with status 0 on SIGTERM."""
    running = run(TAP, "--web.listen-address=127.0.0.1:0", "--shutdown.grace=1s")
    assert cli.main(["health", f"http://{running.web}/-/healthy"]) == 0
    assert running.tap.startswith("127.0.0.1:")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0


def test_environment_is_enough(run: Callable[..., Running]) -> None:
    """Everything can come from the environment; the log is JSON lines where standard error is no terminal."""
    running = run(
        environment={
            "WEBSOCKET_EXPORTER_TAP": "127.0.0.1:0=10.255.255.1:1,target=a 127.0.0.1:0=10.255.255.1:2,target=b",
            "WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
        }
    )
    running.wait_for("metrics listening")
    assert [event["target"] for event in running.events("tap listening")] == ["a", "b"]


def test_port_in_use_is_one_sentence(run: Callable[..., Running]) -> None:
    """A listener that cannot be opened is a sentence with its address, and status 2."""
    address = run(TAP, "--web.listen-address=127.0.0.1:0").web
    with started(TAP, f"--web.listen-address={address}") as second:
        _, stderr = second.communicate(timeout=30)
    assert second.returncode == 2
    assert stderr == f"websocket-exporter: cannot listen on {address}: address already in use\n"


def test_risks_are_logged_at_start(run: Callable[..., Running]) -> None:
    """What check-config warns of, the log warns of."""
    running = run("--tap=127.0.0.1:0=127.0.0.1:1", "--web.listen-address=127.0.0.1:0")
    running.wait_for("metrics listening")
    (warning,) = [json.loads(line) for line in running.log.read_text().splitlines() if '"warning"' in line]
    assert warning["event"].startswith("tap 127.0.0.1:0 connects to 127.0.0.1:1 over loopback")


def test_reload_reads_every_layer_again(run: Callable[..., Running], tmp_path: Path) -> None:
    """SIGHUP reads the file anew under the same flags; a faulty file changes nothing; what must wait is said."""
    file = tmp_path / "config.yaml"
    file.write_text("shutdown: {grace: 1s}")
    running = run(TAP, "--web.listen-address=127.0.0.1:0", f"--config.file={file}")
    running.wait_for("metrics listening")

    file.write_text('web: {listen_address: ":1"}\nshutdown: {grace: 2s}\nlog: {level: debug}')
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("configuration reloaded")
    running.wait_for("shutdown.grace stays 1s until a restart; it is now configured as 2s")
    assert "web.listen-address" not in running.log.read_text(), "the flag still wins"

    file.write_text("exporter: []")
    running.process.send_signal(signal.SIGHUP)
    event = running.wait_for("configuration not reloaded, the old one stays in force")
    known = "capture, capture_options, limits, log, probe, shutdown, storage, tap, targets, web, webhook"
    assert event["faults"] == [f"{file}: exporter: unknown key; known keys are {known}"]

    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
