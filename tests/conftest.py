"""What every level of tests shares: its marker (by folder), its fixtures, and how hypothesis runs.

A test's level is the folder it is in, so that nobody can forget a marker: `-m unit` and `tests/unit` mean the same.
"""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = (
    "pilothouse.tests.broker_fixture",
    "pilothouse.tests.endpoint_fixture",
    "pilothouse.tests.stack_fixture",
)

# A shell starts what it puts in the background with Ctrl-C ignored, and a child inherits that: tests that send one to
# theirs would wait for ever. With a handler here, children begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG_SECONDS = 1_800
"""For the long kills, after which any other test would be taken to hang."""

LEVELS = ("unit", "property", "contract", "replay", "integration", "chaos", "acceptance")

# No deadline: on a shared machine it measures the neighbours. Derandomized in CI: a red build must be red again.
settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")
if os.environ.get("FUZZ_EXAMPLES"):  # `make fuzz`: as many of each, and other ones each time
    settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=int(os.environ["FUZZ_EXAMPLES"]))
    settings.load_profile("fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        level = item.path.relative_to(here).parts[0]
        if level not in LEVELS:
            raise pytest.UsageError(f"{item.path}: tests live in one of {', '.join(LEVELS)}, by level")
        item.add_marker(level)
        if item.get_closest_marker("chaos_long"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))
