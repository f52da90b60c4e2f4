"""`python -m benchmarks.quiet` (`make bench-quiet`): healthy training is left alone, whatever its seed.

Each seed trains the demo's model, fault-free and governed for real: the same DDP script, SDK, broker, governor and
archive as `pilothouse demo --no-faults`, in mode `enforce`, so that a false alarm would have its effect. To be quick it
trains on 2 ranks and for 150 steps (the demo: 4 and 200), one seed after another on one stack, each step as
fast as it goes; the batch of a step is the demo's.

A seed is quiet when nothing was even proposed and no incident was opened. Beside that the smallest stability margin
says how near it came to an alarm. Prints a table, writes JSON with `--json FILE`; the exit status is 0 only if all
seeds were quiet.
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
from pilothouse.cli.demo.plan import Leg, Setting
from pilothouse.cli.demo.screen import Screen
from pilothouse.cli.demo.stack import DemoStack
from pilothouse.cli.demo.story import train_leg
from pilothouse.events.decisions import RunAssessed

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
        setting = {"steps": options.steps, "ranks": options.ranks, "mode": "enforce"}
        options.json.write_text(json.dumps({"setting": setting, "seeds": rows}, indent=1) + "\n")
    return 0 if quiet == len(rows) else 1


def measure(stack: DemoStack, seed: int, options: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    """One seed: what the archive says of it."""
    began = time.monotonic()
    tag = f"quiet-{uuid4().hex[:6]}-{seed}"
    setting = Setting(tag, options.steps, options.ranks, seed, step_seconds=0.0)
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
    """Nothing proposed, no incident; and the run was seen, whole, to its end: silence alone proves nothing."""
    seen = set(account.steps_by_rank.values()) == {setting.steps} and account.run["outcome"] == "completed"
    return seen and not account.interventions and not account.incidents


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
    parser.add_argument("--seeds", type=int, default=12, help="how many, from 0 [12]")
    parser.add_argument("--steps", type=int, default=150, help="of each seed [150]")
    parser.add_argument("--ranks", type=int, default=2, help="that train together [2]")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument("--verbose", action="store_true", help="show each run as it goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
