"""What a user installs: the wheel alone, in an environment that cannot see this checkout."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("cli", "control_room", "events", "governance", "producers", "storage", "stream_processors")
SHIPPED = {".py", ".sql", ".yaml"}

IMPORT_ALL = """
import importlib, pkgutil, pilothouse
assert not hasattr(pilothouse, "no_such_name")
for module in pkgutil.walk_packages(pilothouse.__path__, "pilothouse.", onerror=lambda name: exit(name)):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(pilothouse.__file__)
"""


def run(*command: str | Path) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: setuptools leaves build/ behind, and a stale one would end up inside the next wheel.
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", folder, folder / "source"),
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel, and this environment's libraries but not its pilothouse."""
    folder = tmp_path_factory.mktemp("user")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A folder named in a .pth is searched, but its own .pth files (the editable install's) are not read.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_every_module_imports_from_the_installed_wheel(installed: Path) -> None:
    assert str(installed.parents[1]) in run(installed, "-P", "-c", IMPORT_ALL)


def test_nothing_but_pilothouse_lands_at_the_top_of_site_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pilothouse"}


def test_every_module_query_and_policy_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    ours = {
        f"pilothouse/{path.relative_to(ROOT)}"
        for part in PARTS
        for path in (ROOT / part).rglob("*")
        if path.suffix in SHIPPED
    }
    assert ours <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_says_that_it_is_typed_and_under_which_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "pilothouse/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
