"""The command line: arguments become a command. Bad input ends with exit status 2 and one sentence per fault.

What a command needs is imported when it runs: `health` runs every few seconds in a container, and must not load a
web server for that.
"""

import argparse
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from exporter import __version__

if TYPE_CHECKING:
    from exporter.config import Address, CaptureConfig

PROGRAM: Final = "websocket-exporter"

_RUN_EPILOG: Final = f"""\
commands:
  run                        relay and count; what happens when no command is given
  demo                       a service, its clients and the exporter on loopback, nothing to configure
  capture-exec ... -- COMMAND
                             open the sockets of captures, give up all capabilities, execute COMMAND with the sockets
  check-config FILE          exit status 0, or 2 and one line for each fault; warns of risky settings
  codes [CODE [CODE]]        what close codes mean and how to fix them; two codes: side by side
  health [URL]               exit status 0 if the exporter is healthy, else 1
  assets --out DIR           write dashboards, alert rules, runbooks and example configurations to DIR
  Each has its own --help.

Each flag can be an environment variable too: --web.listen-address is WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS,
and WEBSOCKET_EXPORTER_TAP holds several taps separated by spaces. Flags win over the environment, which wins
over the file.

example:
  {PROGRAM} --tap=0.0.0.0:8080=10.0.0.5:8081,target=chat
"""
_NOTHING_TO_MONITOR: Final = (
    "nothing to monitor: give --tap=LISTEN=UPSTREAM, --capture=INTERFACE:PORT, --probe=NAME=URL, "
    "--webhook.listen-address=ADDRESS, or --config.file=FILE with such a section; see --help"
)
_WIDEST: Final = 110


class _Refused(Exception):
    """Ends the program with status 2; each argument is a sentence for standard error."""


class _Answer(Exception):
    """Ends the program with status 0; the argument is what was asked for."""


class _ReaderLeft(Exception):
    """Nobody reads standard output any more, as in `codes | head`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status."""
    _open_standard_descriptors()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _command(words)
        except _Answer as answer:
            _print(str(answer))
            return 0
    except _ReaderLeft:
        return 0
    except _Refused as refusal:
        _complain(*(f"{PROGRAM}: {sentence}" for sentence in refusal.args))
        return 2
    except KeyboardInterrupt:
        return 130


def _command(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        return _run(words)
    name, *rest = words
    if name not in _COMMANDS:
        raise _Refused(f"unknown command {_shown(name)}; commands are {', '.join(_COMMANDS)}")
    return _COMMANDS[name](rest)


def _run(words: list[str]) -> int:
    from exporter import config
    from exporter.web.doors import load_doors

    flags, taps, captures, probes = _run_flags(words)
    load = partial(config.load, flags, taps, os.environ, probes, captures)
    try:
        current = load()
        doors = load_doors(current)
    except config.ConfigError as error:
        raise _Refused(*error.faults) from None
    if not (current.tap or current.capture or current.probe) and current.webhook_listen_address is None:
        raise _Refused(_NOTHING_TO_MONITOR)

    from exporter import log
    from exporter.listening import StartError

    sockets = None
    if current.capture:
        from exporter.sources.capture.inheritance import prepare

        try:
            sockets = prepare(current)  # the log has a thread
        except StartError as error:
            raise _Refused(str(error)) from None
    log.configure(current.log_level, current.log_format)
    from exporter import app

    return _started(lambda: app.run(current, load, doors, sockets))


def _started(run: Callable[[], int]) -> int:
    from exporter import log
    from exporter.listening import StartError

    try:
        return run()
    except StartError as error:
        log.shutdown()  # what was logged before comes first
        raise _Refused(str(error)) from None


def _run_flags(words: list[str]) -> tuple[dict[str, str], list[str], list[str], list[str]]:
    from exporter.config import SETTINGS

    parser = _Parser(
        f"{PROGRAM} [run] [flags]\n       {PROGRAM} COMMAND ...",
        "A sidecar that relays the WebSocket connections of a service and counts why they end.",
        _RUN_EPILOG,
    )
    parser.flags.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.flags.add_argument("--config.file", metavar="FILE", help="YAML file; reloaded on SIGHUP")
    parser.flags.add_argument(
        "--tap",
        action="append",
        default=[],
        metavar="LISTEN=UPSTREAM[,target=NAME]",
        help="relay what arrives at LISTEN (host:port or :port) to UPSTREAM (host:port or unix:PATH) and count it as "
        "NAME; may be given several times",
    )
    parser.flags.add_argument(
        "--capture",
        action="append",
        default=[],
        metavar="INTERFACE:PORT[,target=NAME]",
        help="watch what passes on INTERFACE from and to the TCP port PORT and count it as NAME; needs the capability "
        "NET_RAW; may be given several times",
    )
    parser.flags.add_argument(
        "--probe",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="connect to URL (ws:// or wss://) as a client and count it as NAME; may be given several times",
    )
    for setting in SETTINGS:
        text = f"{setting.help} (default {setting.default})" if setting.default else setting.help
        if setting.metavar:
            parser.flags.add_argument(setting.flag, dest=setting.name, metavar=setting.metavar, help=text)
        else:
            parser.flags.add_argument(setting.flag, dest=setting.name, action=argparse.BooleanOptionalAction, help=text)
    found = parser.read(words)
    taps, captures, probes = found.pop("tap"), found.pop("capture"), found.pop("probe")
    return {name: _flag_text(value) for name, value in found.items() if value is not None}, taps, captures, probes


def _flag_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _demo(words: list[str]) -> int:
    parser = _Parser(
        f"{PROGRAM} demo [--web.listen-address=ADDRESS]",
        "A WebSocket service that restarts and refuses large messages, its clients, and the exporter between them, "
        "all on loopback. Ends with Ctrl-C.",
    )
    parser.flags.add_argument(
        "--web.listen-address", dest="address", metavar="ADDRESS", help="where /metrics is served"
    )
    given = parser.read(words)["address"]
    address = _address("--web.listen-address", given) if given is not None else _web_address(os.environ)
    from exporter import demo

    return _started(lambda: demo.run(address))


def _capture_exec(words: list[str]) -> NoReturn:
    parser = _Parser(
        f"{PROGRAM} capture-exec --capture=INTERFACE:PORT... -- COMMAND [ARGUMENT...]",
        "Open the sockets of each capture as descriptors from 3 on, two for each, give up all capabilities, and "
        f"execute COMMAND, such as {PROGRAM} --capture=INTERFACE:PORT --capture.fd=3",
    )
    parser.flags.add_argument(
        "--capture",
        action="append",
        default=[],
        metavar="INTERFACE:PORT[,target=NAME]",
        help="as COMMAND has it; may be given several times",
    )
    own, command = _split_at_dashes(words)
    captures = parser.read(own)["capture"]
    if not captures:
        raise _Refused("capture-exec needs a --capture; see --help")
    if not command:
        raise _Refused("capture-exec needs a COMMAND behind --; see --help")
    from exporter.listening import StartError
    from exporter.sources.capture import inheritance

    try:
        inheritance.execute([_capture(text) for text in captures], command)
    except StartError as error:
        raise _Refused(str(error)) from None
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise _Refused(f"cannot execute {_shown(command[0])}: {reason}") from None


def _split_at_dashes(words: list[str]) -> tuple[list[str], list[str]]:
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def _capture(text: str) -> "CaptureConfig":
    from exporter.config import parse_capture_flag

    try:
        return parse_capture_flag(text)
    except ValueError as error:
        raise _Refused(f"--capture {json.dumps(text)}: {error}") from None


def _check_config(words: list[str]) -> int:
    parser = _Parser(f"{PROGRAM} check-config FILE", "Check a configuration file, without flags and environment.")
    parser.arguments.add_argument("FILE", nargs="?", help="the YAML file")
    file = parser.read(words)["FILE"]
    if file is None:
        raise _Refused("check-config needs a FILE; see --help")
    from exporter import config
    from exporter.web.doors import load_doors, risks

    try:
        checked = config.load({"config.file": file})
        doors = load_doors(checked)
    except config.ConfigError as error:
        _complain(*error.faults)
        return 2
    found = (*config.warnings(checked), *risks(doors))
    _complain(*(f"{_shown(file)}: warning: {warning}" for warning in found))
    counts = f"taps: {len(checked.tap)}; captures: {len(checked.capture)}; probes: {len(checked.probe)}"
    _print(f"{_shown(file)}: valid; {counts}; targets: {', '.join(checked.targets)}\n")
    return 0


def _codes(words: list[str]) -> int:
    parser = _Parser(
        f"{PROGRAM} codes [CODE [CODE]]",
        "What close codes mean, when they are seen and how to fix them; two codes: side by side.",
    )
    parser.arguments.add_argument("CODE", nargs="*", help="a close code such as 1009")
    given = parser.read(words)["CODE"]
    if len(given) > 2:
        raise _Refused("codes takes two codes at most; see --help")
    for word in given:
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise _Refused(f"{_shown(word)} is not a close code; give a number such as 1009")
    from exporter import codes

    width = min(shutil.get_terminal_size((100, 24)).columns, _WIDEST)
    views: tuple[Callable[..., str], ...] = (codes.listing, codes.describe, codes.compare)
    try:
        _print(views[len(given)](*map(int, given), width=width).rstrip("\n") + "\n")
    except codes.UnknownCode as error:
        raise _Refused(str(error)) from None
    return 0


def _health(words: list[str]) -> int:
    parser = _Parser(
        f"{PROGRAM} health [URL]",
        "Ask a running exporter whether it is healthy: exit status 0 if it is, else 1. Without URL it is asked on "
        "this machine, on the port of WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS or 11009.",
    )
    parser.arguments.add_argument("URL", nargs="?", help="such as http://127.0.0.1:11009/-/healthy")
    url = parser.read(words)["URL"]
    from exporter.web import health

    try:
        healthy, sentence = health.check(_health_url(os.environ, health.DEFAULT_URL) if url is None else url)
    except ValueError:
        raise _Refused(f"{_shown(url)} is not a URL") from None
    if not healthy:
        _complain(f"{PROGRAM}: {sentence}")
        return 1
    _print(f"{sentence}\n")
    return 0


def _health_url(environment: Mapping[str, str], default: str) -> str:
    address = _web_address(environment)
    if address is None:
        return default
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
    host = everywhere.get(address.host, address.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{address.port}/-/healthy"


def _web_address(environment: Mapping[str, str]) -> "Address | None":
    name = "WEBSOCKET_EXPORTER_WEB_LISTEN_ADDRESS"
    return _address(name, environment[name]) if environment.get(name) else None


def _address(place: str, text: str) -> "Address":
    from exporter.config import parse_listen

    try:
        return parse_listen(text)
    except ValueError as error:
        raise _Refused(f"{place}: {error}") from None


def _assets(words: list[str]) -> int:
    parser = _Parser(
        f"{PROGRAM} assets --out DIR",
        "Write the dashboards, alert rules, runbooks and example configurations to DIR, over what stands there.",
    )
    parser.flags.add_argument("--out", metavar="DIR", help="the folder; made if missing")
    out = parser.read(words)["out"]
    if not out:
        raise _Refused("assets needs --out DIR; see --help")
    from exporter import assets

    try:
        written = assets.copy_to(Path(out))
    except OSError as error:
        reason = f"{error.strerror.lower()}: {_shown(str(error.filename))}" if error.strerror else str(error)
        raise _Refused(f"cannot write the assets to {_shown(out)}: {reason}") from None
    _print("".join(f"{_shown(str(path))}\n" for path in written))
    return 0


_COMMANDS: Final[Mapping[str, Callable[[list[str]], int]]] = {
    "run": _run,
    "demo": _demo,
    "capture-exec": _capture_exec,
    "check-config": _check_config,
    "codes": _codes,
    "health": _health,
    "assets": _assets,
}


class _Parser(argparse.ArgumentParser):
    """argparse that answers with sentences instead of usage texts, and never ends the process by itself."""

    def __init__(self, usage: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=PROGRAM,
            usage=usage,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            add_help=False,
            exit_on_error=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.arguments = self.add_argument_group("arguments")
        self.flags = self.add_argument_group("flags")
        self.flags.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help and exit")

    def read(self, words: list[str]) -> dict[str, Any]:
        """The value of each argument by its name without dashes. Raises _Refused or _Answer."""
        try:
            found, rest = self.parse_known_args(words)
        except argparse.ArgumentError as error:
            flag = (error.argument_name or "").partition("/")[0]
            fault = "needs a value" if error.message == "expected one argument" else "takes no value"
            raise _Refused(f"flag {flag} {fault}; see --help") from None
        if rest and rest[0].startswith("-"):
            raise _Refused(f"unknown flag {_shown(rest[0].partition('=')[0])}; see --help")
        if rest:
            raise _Refused(f"unexpected argument {_shown(rest[0])}; see --help")
        return vars(found)

    def error(self, message: str) -> NoReturn:
        raise _Refused(f"{message}; see --help")


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _Answer(parser.format_help())


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        raise _Answer(f"{PROGRAM} {__version__}\n")


def _shown(text: str) -> str:
    return text if re.fullmatch(r"[!-~]+", text) else json.dumps(text)


def _print(text: str) -> None:
    if sys.stdout is None:
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to fail
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit fails once more
        if isinstance(error, BrokenPipeError):
            raise _ReaderLeft from None
        raise _Refused(f"cannot write to standard output: {(error.strerror or 'unknown error').lower()}") from None


def _complain(*lines: str) -> None:
    with suppress(OSError):
        for line in lines:
            if sys.stderr is not None:
                print(line, file=sys.stderr, flush=True)


def _open_standard_descriptors() -> None:
    """Give standard streams that were closed by the parent to /dev/null.

    Else the first sockets would get their numbers, and whatever is written to standard error would reach a peer.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
