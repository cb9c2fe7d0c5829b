"""The built wheel: installed into an environment of its own, away from the source, it is the whole product."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from exporter import __version__, assets

ROOT: Final = Path(__file__).parent.parent

pytestmark = pytest.mark.timeout(240)

Run = Callable[..., subprocess.CompletedProcess[str]]


def check_run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the sdist, which is built from the checkout, by the pinned build backend."""
    out = tmp_path_factory.mktemp("dist")
    check_run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    assert [path.name for path in out.glob("*.tar.gz")] == [f"websocket_exporter-{__version__}.tar.gz"]
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of a fresh environment that holds the wheel; the dependencies are this environment's."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", symlinks=True)
    python = home / "venv/bin/python"
    check_run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    site_packages = check_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).stdout
    (Path(site_packages.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return lambda program, *arguments: check_run(home / "venv/bin" / program, *arguments, cwd=home)


def test_the_package_is_imported_from_the_wheel(installed: Run) -> None:
    """Nothing reaches back to the checkout: `exporter` comes from the new environment."""
    code = "import exporter, sys; print(exporter.__file__); print(*sys.path, sep='\\n')"
    origin, *search_path = installed("python", "-c", code).stdout.splitlines()
    assert Path(origin).parts[-3:] == ("site-packages", "exporter", "__init__.py")
    assert not Path(origin).is_relative_to(ROOT)
    assert str(ROOT) not in search_path


def test_the_console_script_runs(installed: Run) -> None:
    """`websocket-exporter --version` prints the version that the package was built as."""
    assert __version__ in installed("websocket-exporter", "--version").stdout


def test_the_knowledge_base_is_in_the_wheel(installed: Run) -> None:
    """`codes 1009` needs nothing but the wheel."""
    assert "Message Too Big" in installed("websocket-exporter", "codes", "1009").stdout


def test_the_assets_are_those_of_the_checkout(installed: Run, tmp_path: Path) -> None:
    """`assets --out` writes from the wheel what it writes from the checkout, byte for byte."""
    installed("websocket-exporter", "assets", "--out", str(tmp_path / "wheel"))
    expected = {path.relative_to(tmp_path / "checkout") for path in assets.copy_to(tmp_path / "checkout")}
    written = {path.relative_to(tmp_path / "wheel") for path in (tmp_path / "wheel").rglob("*") if path.is_file()}
    assert written == expected
    assert all(
        (tmp_path / "wheel" / name).read_bytes() == (tmp_path / "checkout" / name).read_bytes() for name in expected
    )


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    """One import folder with its types and its page, the license, and neither tests nor development code."""
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = f"websocket_exporter-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"exporter", metadata}
    assert {"exporter/py.typed", f"{metadata}/licenses/LICENSE", f"{metadata}/entry_points.txt"} <= names
    assert {"exporter/web/status.html.jinja", "exporter/web/status.css"} <= names
    assert not [name for name in names if "/tests/" in name or "__pycache__" in name]
