"""Assets: found beside the package, copied whole, and mapped into the wheel exactly as they are found."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest
import yaml

from exporter import assets, config

ROOT: Final = Path(__file__).parent.parent
CAPTURES: Final = tuple((ROOT / "exporter/sources/capture").glob("*.py"))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`: relative path -> content."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", assets.PATHS)
def test_a_checkout_has_every_kind(kind: assets.Kind) -> None:
    """In a checkout each kind of assets is a folder at the top of the repository."""
    assert assets.root(kind) == ROOT / assets.PATHS[kind]


def test_copies_are_laid_out_as_in_the_checkout(tmp_path: Path) -> None:
    """Dashboards, rules, runbooks and examples are copied under the same paths, and but for links as they are."""
    written = assets.copy_to(tmp_path / "out")
    copied = tree(tmp_path / "out")
    assert {str(path.relative_to(tmp_path / "out")) for path in written} == set(copied)
    changed = {name for name, content in copied.items() if (ROOT / name).read_bytes() != content}
    assert {Path(name).suffix for name in changed} == {".md", ".yaml"}
    assert len(changed) < len(copied) / 3
    for pattern in (
        r"dashboards/grafana/[\w-]+\.json",
        r"alerts/rules/[\w-]+\.yaml",
        r"alerts/runbooks/\w+\.md",
        r"alerts/render\.py",
        r"alerts/values\.yaml",
        r"alerts/templates/[\w.]+",
        r"alerts/operator/\w+\.yaml",
        r"deploy/config\.example\.yaml",
        r"deploy/prometheus/prometheus\.yml",
        r"deploy/systemd/websocket-exporter\.service",
        r"deploy/systemd/capture\.conf",
        r"deploy/compose/compose\.yaml",
        r"deploy/compose/web\.yaml",
        r"deploy/README\.md",
        r"dashboards/README\.md",
        r"deploy/grafana/dashboards\.yaml",
        r"deploy/kubernetes/deployment\.yaml",
        r"deploy/kubernetes/capture/deployment\.yaml",
    ):
        assert any(re.fullmatch(pattern, name) for name in copied), pattern


def test_what_is_of_use_in_a_checkout_only_stays_there(tmp_path: Path) -> None:
    """promtool tests are for whoever changes the rules, and compose finds no checkout to build an image from."""
    assets.copy_to(tmp_path)
    for left_out in assets.LEFT_OUT:
        assert (ROOT / left_out).exists()
        assert not (tmp_path / left_out).exists()


LINK = re.compile(r"\]\(([^)\s]+)\)")
MENTION = re.compile(r"\bdocs/[\w-]+\.md")


def test_every_link_leads_somewhere(tmp_path: Path) -> None:
    """To another asset, or by its full address to a page that the project has."""
    copies = [copy for copy in assets.copy_to(tmp_path) if copy.suffix == ".md"]
    links = [(copy, link.partition("#")[0]) for copy in copies for link in LINK.findall(copy.read_text())]
    full = [link.removeprefix(f"{assets.DOCUMENTATION}/") for _, link in links if link.startswith(assets.DOCUMENTATION)]
    beside = [copy.parent / link for copy, link in links if not re.match("[a-z]+:|$", link)]
    assert {"docs/webhook.md", "docs/tap.md", "docs/performance.md"} <= set(full)
    assert [link for link in full if not (ROOT / link).exists()] == []
    assert len(beside) > 10
    assert [link for link in beside if not link.exists()] == []


def test_pages_that_are_not_shipped_have_their_full_address(tmp_path: Path) -> None:
    """In texts and in the comments of configurations, wherever docs/ is named."""
    texts = [copy.read_text() for copy in assets.copy_to(tmp_path) if copy.suffix in (".md", ".yaml", ".yml", ".py")]
    named = [
        text[found.start() - 1 - len(assets.DOCUMENTATION) : found.end()]
        for text in texts
        for found in MENTION.finditer(text)
    ]
    assert len(named) > 10
    assert [each for each in named if not each.startswith(assets.DOCUMENTATION) and "[" not in each] == []


def test_links_are_made_absolute_where_they_lead_outside() -> None:
    """Shipped files, parts of a page, folders and foreign addresses stay as they are."""
    shipped = ("deploy/README.md", "deploy/compose/compose.yaml", "alerts/README.md")
    base = assets.DOCUMENTATION
    for link, expected in {
        "[c](compose/compose.yaml)": None,
        "[c](compose/)": None,
        "[a](../alerts/README.md#load-them)": None,
        "[here](#compose)": None,
        "[there](https://example.com/docs)": None,
        "[t](../docs/tap.md#limits)": f"[t]({base}/docs/tap.md#limits)",
        "[docs/tap.md](../docs/tap.md)": f"[docs/tap.md]({base}/docs/tap.md)",
        "[x](../alerts/tests)": f"[x]({base}/alerts/tests)",
        "see docs/tap.md.": f"see {base}/docs/tap.md.",
    }.items():
        assert assets.standalone("deploy/README.md", link, shipped) == (expected or link)
    assert assets.standalone("deploy/x.yaml", "# [a](b): docs/a.md", ()) == f"# [a](b): {base}/docs/a.md"


def test_the_compose_file_needs_no_checkout(tmp_path: Path) -> None:
    """What it mounts is among the assets, and the sources of its image have an address."""
    assets.copy_to(tmp_path)
    folder = tmp_path / "deploy/compose"
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    mounted = [volume.split(":")[0] for each in services.values() for volume in each.get("volumes", ())]
    assert all((folder / source).exists() for source in mounted if source.startswith("."))
    sources = services["exporter"]["build"]["context"]
    assert sources == "${WEBSOCKET_EXPORTER_SOURCE:-https://github.com/websocket-exporter/websocket-exporter.git}"
    assert sources[sources.index("https") : -len(".git}")] in assets.DOCUMENTATION


def test_a_newer_copy_replaces_an_older_one(tmp_path: Path) -> None:
    """Copying over an earlier copy brings its files up to date and leaves the operator's own alone."""
    (stale, *_) = assets.copy_to(tmp_path)
    current = stale.read_bytes()
    stale.write_text("old")
    (tmp_path / "alerts/rules/own.yaml").write_text("groups: []")
    assets.copy_to(tmp_path)
    assert stale.read_bytes() == current
    assert (tmp_path / "alerts/rules/own.yaml").read_text() == "groups: []"


def test_an_installation_without_assets_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without assets the fault names the kind and the folder looked for, and nothing is written."""
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "site-packages/exporter")
    sentence = f"this installation carries no dashboards: {tmp_path}/site-packages/dashboards/grafana is not a folder"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        assets.copy_to(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_wheel_is_mapped_as_assets_are_found() -> None:
    """What the build backend puts below exporter/_assets/ is what this module looks for there."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {path.partition("/")[0] for path in (*assets.PATHS.values(), *assets.PAGES)}
    assert wheel["sources"] == {folder: f"exporter/_assets/{folder}" for folder in folders}
    assert set(wheel["only-include"]) == {"exporter", *assets.PATHS.values(), *assets.PAGES}
    assert set(wheel["exclude"]) == {f"/{path}" for path in assets.LEFT_OUT}


@pytest.mark.needs("promtool")
def test_the_example_prometheus_finds_the_rules_beside_it(tmp_path: Path) -> None:
    """The copied Prometheus configuration is valid and loads the copied alert rules by its relative path."""
    assets.copy_to(tmp_path)
    check = subprocess.run(
        ["promtool", "check", "config", tmp_path / "deploy/prometheus/prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert re.search(r"SUCCESS: [1-9]\d* rule files found", check.stdout)
    said = yaml.safe_load((tmp_path / "deploy/prometheus/prometheus.yml").read_text())
    assert said["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]


def test_the_example_configuration_is_sound() -> None:
    """It loads without a fault, and without a warning: what it shows is safe to copy."""
    example = config.load({"config.file": str(ROOT / "deploy/config.example.yaml")})
    assert config.warnings(example) == ()
    assert set(example.targets) == {tap.target for tap in example.tap} == {"chat"}


SYSTEMD: Final = ROOT / "deploy/systemd"
CAPTURE: Final = "capture.conf"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def verified(folder: Path, *drop_ins: str) -> str:
    """What systemd has to say of the unit with drop-ins of these contents; only the program is elsewhere."""
    unit = (SYSTEMD / "websocket-exporter.service").read_text()
    here = folder / "websocket-exporter.service"
    here.write_text(unit.replace("/opt/websocket-exporter/bin/websocket-exporter", "/bin/true"))
    beside = folder / f"{here.name}.d"
    beside.mkdir()
    for number, text in enumerate(drop_ins):
        (beside / f"{number}.conf").write_text(text)
    verify = ["systemd-analyze", "verify", "--man=no", here]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    return done.stderr


@needs_systemd
def test_the_example_unit_is_valid(tmp_path: Path) -> None:
    """systemd accepts every setting of the unit."""
    assert verified(tmp_path) == ""


@needs_systemd
def test_the_drop_in_of_a_capture_is_valid(tmp_path: Path) -> None:
    """And every setting of it beside the unit; one that is misspelt would be noticed."""
    text = (SYSTEMD / CAPTURE).read_text()
    assert verified(tmp_path, text) == ""
    (tmp_path / "misspelt").mkdir()
    assert "AmbientCapability" in verified(
        tmp_path / "misspelt", text.replace("AmbientCapabilities", "AmbientCapability")
    )


def test_the_drop_in_gives_a_capture_what_it_needs() -> None:
    """One capability, within the unit's bounding set too, and the families of the sockets that it opens."""
    given = dict(re.findall(r"(?m)^(\w+)=(.*)$", (SYSTEMD / CAPTURE).read_text()))
    opened = re.findall(r"socket\.(AF_(?:PACKET|NETLINK))", "".join(path.read_text() for path in CAPTURES))
    assert given == {
        "CapabilityBoundingSet": "CAP_NET_RAW",
        "AmbientCapabilities": "CAP_NET_RAW",
        "RestrictAddressFamilies": "AF_PACKET AF_NETLINK",
    }
    assert set(opened) == {"AF_PACKET", "AF_NETLINK"}
