"""`python -m benchmarks.quiet` (`make bench-quiet`): healthy training is left alone, whatever its seed.

Each seed is `pilothouse demo --no-faults` of that seed: the same training in the same setting, the same SDK, broker,
governor and archive, in mode `enforce`, so that a false alarm would have its effect; one seed after another on one
stack. Some eight minutes on 2 cores. `--quick` trains on 2 ranks, 150 steps, each as fast as it goes: five.

A seed is quiet when the demo's own verdict on such a run holds: every step of every rank archived, the run judged to
its end, nothing even proposed, no incident, a finite loss. Beside that the smallest stability margin says how near it
came to an alarm. Prints a table, writes JSON with `--json FILE`; the exit status is 0 only if all seeds were quiet.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from pilothouse.cli.demo.account import Account
from pilothouse.cli.demo.plan import FEWEST_STEPS, RANKS, STEP_SECONDS, STEPS, Leg, Setting
from pilothouse.cli.demo.screen import Screen
from pilothouse.cli.demo.stack import DemoStack
from pilothouse.cli.demo.story import train_leg
from pilothouse.cli.demo.verdict import findings
from pilothouse.events.decisions import RunAssessed

QUICK = (2, FEWEST_STEPS, 0.0)
"""Ranks, steps, seconds a step takes at least."""

COLUMNS = ("seed", "steps", "proposed", "incidents", "smallest margin", "validation loss", "seconds", "quiet")


def main(arguments: list[str]) -> int:
    """Train every seed; 0 if all were quiet."""
    options = _options(arguments)
    rows: list[dict[str, Any]] = []
    console = Console(stderr=True, quiet=not options.verbose)
    print("  ".join(COLUMNS), flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="pilothouse-quiet-") as folder,
        DemoStack(Path(folder)) as stack,
        Screen(console) as screen,
    ):
        for seed in range(options.seeds):
            rows.append(measure(stack, seed, options, screen))
            print("  ".join(f"{_shown(rows[-1][name]):>{len(name)}}" for name in COLUMNS), flush=True)
    quiet = sum(row["quiet"] for row in rows)
    print(f"{quiet} of {len(rows)} seeds were quiet")
    if options.json is not None:
        setting = {name: getattr(options, name) for name in ("steps", "ranks", "step_seconds")} | {"mode": "enforce"}
        options.json.write_text(json.dumps({"setting": setting, "seeds": rows}, indent=1) + "\n")
    return 0 if quiet == len(rows) else 1


def measure(stack: DemoStack, seed: int, options: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    """One seed: what the archive says of it."""
    began = time.monotonic()
    tag = f"quiet-{uuid4().hex[:6]}-{seed}"
    setting = Setting(tag, options.steps, options.ranks, seed, options.step_seconds)
    account = train_leg(stack, setting, Leg("quiet", "enforce"), screen)
    return {
        "seed": seed,
        "run_id": account.run_id,
        "steps": min(account.steps_by_rank.values(), default=0),
        "proposed": len(account.interventions),
        "incidents": len(account.incidents),
        "smallest margin": smallest_margin(account),
        "validation loss": account.validation_loss,
        "seconds": time.monotonic() - began,
        "quiet": is_quiet(account, setting),
    }


def is_quiet(account: Account, setting: Setting) -> bool:
    """The run was seen, whole, to its end, and left alone: silence alone would prove nothing."""
    return all(finding.held for finding in findings(setting, {"quiet": account}))


def smallest_margin(account: Account) -> float:
    """Of the governor's assessments, one a second."""
    margins = [decision.margin for decision in account.decisions if isinstance(decision, RunAssessed)]
    return min((margin for margin in margins if margin is not None), default=0.0)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quiet", description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="how many, from 0 [%(default)s]")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each seed [%(default)s]")
    parser.add_argument("--ranks", type=int, default=RANKS, help="that train together [%(default)s]")
    parser.add_argument(
        "--step-seconds", type=float, default=STEP_SECONDS, help="what a step takes at least [%(default)s]"
    )
    parser.add_argument("--quick", action="store_true", help="2 ranks, 150 steps, as fast as they go")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument("--verbose", action="store_true", help="show each run as it goes")
    options = parser.parse_args(arguments)
    if options.quick:
        options.ranks, options.steps, options.step_seconds = QUICK
    if options.seeds < 1 or options.ranks < 1 or options.steps < FEWEST_STEPS:
        parser.error(f"at least 1 seed, 1 rank and {FEWEST_STEPS} steps")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
