"""What the peers are installed from: exact versions by hash, in agreement with the rest."""

import json
import re
from pathlib import Path
from typing import Final

from tests.test_repository import pins

NODE_LOCK: Final = Path(__file__).parent / "node/package-lock.json"


def test_python_peers_agree_with_the_development_requirements() -> None:
    """Both are installed into one environment: what is in both has one version, with the same files."""
    peers, development = pins("requirements-peers.txt"), pins("requirements-dev.txt")
    shared = peers.keys() & development.keys()
    assert {"websockets", "uvloop"} <= shared
    assert {name: peers[name] for name in shared} == {name: development[name] for name in shared}


def test_node_peers_are_pinned_by_hash() -> None:
    """Each package has an exact version and a SHA-512, and no address that it came from."""
    packages = json.loads(NODE_LOCK.read_text())["packages"]
    installed = {name.removeprefix("node_modules/"): package for name, package in packages.items() if name}
    assert installed.keys() == {"uwebsockets", "ws"}
    for package in installed.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package
