"""What a user installs: the wheel alone, in an environment that cannot see this checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pilothouse.cli.brokers import free_port

ROOT = Path(__file__).parents[2]
PARTS = ("cli", "control_room", "events", "governance", "producers", "storage", "stream_processors")
SHIPPED = {".css", ".py", ".sql", ".yaml"}
BASE = {
    "annotated-doc",
    "annotated-types",
    "cffi",
    "crc32c",
    "cryptography",
    "kafka-python",
    "markdown-it-py",
    "mdurl",
    "msgspec",
    "pilothouse",
    "psutil",
    "pydantic",
    "pycparser",
    "pydantic-core",
    "pygments",
    "rich",
    "shellingham",
    "typer",
    "typing-extensions",
    "typing-inspection",
}
"""All that an install without extras brings."""

IMPORT_ALL = """
import importlib, pkgutil, pilothouse
assert not hasattr(pilothouse, "no_such_name")
for module in pkgutil.walk_packages(pilothouse.__path__, "pilothouse.", onerror=lambda name: exit(name)):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(pilothouse.__file__)
"""


def run(*command: str | Path, environ: Mapping[str, str] | None = None) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    env = inherited | dict(environ or {})
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=env)
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


class Wanted(NamedTuple):
    name: str
    extras: frozenset[str]


LOCKED_AWAY = """
import sys

class Door:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("not in the base install: " + name, name=name)

sys.meta_path.insert(0, Door())
"""

TRAIN = """
import pilothouse
with pilothouse.start_run("base", config={"lr": 0.1}) as run:
    for step in range(100):
        run.log(step, loss=1.0 / (step + 1))
assert run.counts().spooled == run.counts().accepted == 103, run.counts()
"""

HELP = """
import runpy
sys.argv = ["pilothouse", "--help"]
runpy.run_path({script!r}, run_name="__main__")
"""


def brought_by(wheel: Path) -> set[str]:
    """The distributions that an install of this wheel without extras brings, by their canonical names."""
    (itself,) = metadata.distributions(path=[str(wheel)])
    waiting = list(wanted(itself.requires, frozenset()))
    seen: set[Wanted] = set()
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += wanted(metadata.requires(one.name), one.extras)
    return {one.name for one in seen}


def wanted(requirements: Iterable[str] | None, extras: frozenset[str]) -> Iterator[Wanted]:
    """Those requirements that hold here and with these extras."""
    for required in map(Requirement, requirements or ()):
        marker = required.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield Wanted(canonicalize_name(required.name), frozenset(required.extras))


@pytest.fixture(scope="module")
def locked_away(wheel: Path) -> str:
    """Code after which nothing can be imported that the base install does not bring."""
    base = brought_by(wheel) | {"pilothouse"}
    assert base == BASE, "what a training image takes: DECISIONS.md says why each"
    owners = metadata.packages_distributions()
    blocked = {top for top, names in owners.items() if not base & {canonicalize_name(name) for name in names}}
    assert blocked >= {"torch", "numpy", "faust", "clickhouse_connect", "yaml", "aiohttp", "chdb", "pytest"}
    assert not blocked & {"pilothouse", "pydantic", "kafka", "msgspec", "crc32c", "typer", "rich"}
    return LOCKED_AWAY.format(blocked=blocked)


def test_the_base_install_alone_trains_and_spools(installed: Path, locked_away: str, tmp_path: Path) -> None:
    environ = {
        "PILOTHOUSE_DATA_DIR": str(tmp_path),
        "PILOTHOUSE_KAFKA": f"127.0.0.1:{free_port()}",
        "PILOTHOUSE_CLOSE_SECONDS": "5",
    }
    run(installed, "-P", "-c", locked_away + TRAIN, environ=environ)
    assert list((tmp_path / "spool").glob("base-*/*"))


def test_the_base_install_alone_has_the_command_line(installed: Path, locked_away: str) -> None:
    said = run(installed, "-P", "-c", locked_away + HELP.format(script=str(installed.parent / "pilothouse")))
    assert "demo" in said


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
