"""`make gameday`, with a person who looks and acts as people do: at another terminal, by the ordinary commands."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilothouse.tests.stack_fixture import typed

RUN = "gameday-7"
WAIT = 300.0

pytestmark = pytest.mark.chaos_long


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def test_who_finds_what_broke_and_stops_it_gets_the_points(tmp_path: Path) -> None:
    report = tmp_path / "gameday.json"
    command = [sys.executable, "-P", "-m", "pilothouse.cli.gameday", "--seed", "7", "--card", "learning rate"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--report", str(report)], stdin=pipe, stdout=pipe, text=True) as exercise:
        try:
            assert exercise.stdin is not None
            assert exercise.stdout is not None
            brief = iter(exercise.stdout.readline, "")
            data_dir = Path(next(line for line in brief if "PILOTHOUSE_DATA_DIR=" in line).partition("=")[2].strip())
            until(lambda: "Diverged" in typed("show", RUN, data_dir=data_dir).stdout, "the run is seen to diverge")
            exercise.stdin.write("the learning rate is out of all bounds\n")
            exercise.stdin.flush()
            ordered = typed("stop", RUN, "--why", "it diverged", data_dir=data_dir)
            assert ordered.returncode == 0, ordered.stderr
            said, _ = exercise.communicate(timeout=WAIT)
        finally:
            exercise.kill()
    assert "What broke: learning rate" in said
    told = json.loads(report.read_text())
    assert told["score"]["wrong_answers"] == told["score"]["needless_orders"] == 0
    assert told["score"]["seen_after"] > 0
    assert [order["verb"] for order in told["orders"]] == ["stop"]
    assert told["score"]["points"] > 50
    assert any("Finite" in sign or "Stable" in sign for _, sign in told["signs"])
