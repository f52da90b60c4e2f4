import subprocess
import sys

import pytest

import pilothouse

HEAVY = ("aiohttp", "aiokafka", "chdb", "clickhouse_connect", "faust", "kafka", "torch")

LOAD_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module({name!r})
if {name!r} != "pilothouse":
    for module in pkgutil.walk_packages(package.__path__, {name!r} + "."):
        importlib.import_module(module.name)
print(" ".join(sorted(set(sys.modules) & set({heavy!r}))))
"""


@pytest.mark.parametrize("name", ["pilothouse", "pilothouse.events", "pilothouse.governance"])
def test_importing_the_core_loads_no_heavy_library(name: str) -> None:
    code = LOAD_ALL.format(name=name, heavy=HEAVY)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == []


@pytest.mark.parametrize("name", ["events", "storage", "cli", "governance"])
def test_no_part_of_the_package_can_be_imported_by_its_bare_name(name: str) -> None:
    # The child gets a script on its path that is not the checkout: as a user's process has it.
    answer = subprocess.run([sys.executable, "-P", "-c", f"import {name}"], capture_output=True, text=True, check=False)
    assert f"No module named '{name}'" in answer.stderr


def test_an_unknown_name_says_what_the_package_offers() -> None:
    name = "start"
    with pytest.raises(AttributeError, match=r"has no attribute 'start'.*start_run"):
        getattr(pilothouse, name)


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert pilothouse.__version__.count(".") == 2
