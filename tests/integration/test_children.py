"""A child's log stays within its bound, and a child that will not end is ended."""

import os
import sys
import time
from pathlib import Path

import pytest

from pilothouse.cli.children import Child, stop_all

WRITER = "import sys\nfor i in range(200_000): sys.stdout.write(f'line {i}\\n'); sys.stdout.flush()\nsys.stdin.read()"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
)


def until(holds: object, child: Child) -> None:
    assert callable(holds)
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not in time; its log: {child.last_lines()}")
        time.sleep(0.02)


def run(child: Child, code: str) -> None:
    child.start([sys.executable, "-c", code], os.environ)


def test_a_log_is_bounded_while_its_child_writes(tmp_path: Path) -> None:
    child = Child("writer", tmp_path / "writer.log")
    run(child, WRITER)
    while child.alive:
        child.bound_log(limit=100_000)
        time.sleep(0.01)
    child.bound_log(limit=100_000)
    assert child.log.stat().st_size <= 100_000
    assert child.log.with_suffix(".log.1").exists()
    assert child.exit_status == 0


def test_a_child_that_does_not_listen_is_killed_and_named(tmp_path: Path) -> None:
    child = Child("deaf one", tmp_path / "deaf.log")
    run(child, STUBBORN)
    until(lambda: "deaf" in child.last_lines(), child)
    assert stop_all([child], 0.2) == ["deaf one"]
    assert child.exit_status == -9


def test_a_child_may_be_started_again(tmp_path: Path) -> None:
    child = Child("brief", tmp_path / "brief.log")
    for _ in range(2):
        run(child, "print('once')")
        assert child.wait(20)
    assert child.last_lines() == ["once", "once"]
