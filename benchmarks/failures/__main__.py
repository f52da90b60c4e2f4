"""`python -m benchmarks.failures` (`make bench-sdk-failures`): the same failures, done to us and to the peers.

Each cell is a training script in a process of its own (500 steps of 2 ms, of MLflow with a server 100; 12 scalars each;
the logger's defaults) and a failure: a server dead at start or from the middle on, a full disk, a forked worker that
logs, SIGKILL behind the last call, an end without `close`. Prints what each did to the loop (what it raised, the
longest call, how much slower the loop was) and how many of the script's steps cannot be read back afterwards; writes
all of it to build/bench/sdk_failures.json. What a logger has not got (a server, a disk) cannot fail, and has no row.

A script that is not over after `--deadline` seconds is ended, as its owner would, and what it had not stored is lost.
"""

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .loggers import LOGGERS
from .runner import FAILURES, Cell, can_fill_disks, measure
from .servers import Servers

PACKAGES = {
    "pilothouse": "pilothouse",
    "kafka-python": "kafka-python",
    "confluent-kafka": "confluent-kafka",
    "wandb-offline": "wandb",
    "wandb-online": "wandb",
    "mlflow-server": "mlflow",
    "mlflow-sqlite": "mlflow",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
}
JSON = Path("build/bench/sdk_failures.json")
HEADING = f"{'failure':20}{'logger':17}{'longest call':>13}{'slowdown':>10}{'start':>9}{'close':>9}{'lost':>12}"


def main(arguments: list[str]) -> int:
    """Every cell; 0 when ours raised nothing."""
    options = _options(arguments)
    missing = [name for name in LOGGERS if find_spec(PACKAGES[name].replace("-", "_")) is None]
    for name in missing:
        if name != "kafka-python":
            print(f"not measured: {name} is not installed (pip install {PACKAGES[name]})")
    rows: list[dict[str, Any]] = []
    disks = can_fill_disks()
    if not disks:
        print("not measured: 'disk full', for this machine lets nobody mount a file system (unshare --mount)")
    print(HEADING, flush=True)
    with tempfile.TemporaryDirectory(prefix="failures-", ignore_cleanup_errors=True) as scratch:
        servers = Servers(Path(scratch))
        for failure, name in _cells(options):
            if (name in missing and name != "kafka-python") or (failure.startswith("disk") and not disks):
                continue
            rows.append(measure(Cell(name, failure, _steps(name, options), options.deadline), servers))
            print(_line(rows[-1]), flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"setting": _setting(options), "rows": rows}, indent=1) + "\n")
    ours = [row for row in rows if row["name"] == "pilothouse"]
    return 1 if any(row["raises"] for row in ours) else 0


def _steps(name: str, options: argparse.Namespace) -> int:
    """Each call of MLflow waits for its server: a fifth of the steps takes it as long as any other all of them."""
    return int(options.steps) // 5 if name == "mlflow-server" else int(options.steps)


def _cells(options: argparse.Namespace) -> list[tuple[str, str]]:
    return [
        (failure, name)
        for failure, names in FAILURES.items()
        for name in names
        if (not options.only or name in options.only) and (not options.failure or failure in options.failure)
    ]


def _line(row: dict[str, Any]) -> str:
    happened = [row["ended"]]
    if row["raised"]:
        happened.append(f"raised {row['raises']}x in {row['raised_at']}: {' '.join(row['raised'].split())[:90]}")
    if row["worker_hung"]:
        happened.append("the forked worker hung")
    if row["kept_of_worker"]:
        happened.append(f"{row['kept_of_worker']} steps of the worker kept")
    return (
        f"{row['failure']:20}{row['name']:17}{_seconds(row['longest_call_s']):>13}{_times(row['slowdown']):>10}"
        f"{_seconds(row['start_s']):>9}{_seconds(row['close_s']):>9}"
        f"{row['lost']:>6} / {row['steps']:<3}  {'; '.join(happened)}"
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.1f} s"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}x"


def _setting(options: argparse.Namespace) -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in sorted(set(PACKAGES.values())):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "steps": options.steps,
        "deadline_s": options.deadline,
        "python": platform.python_version(),
        "versions": versions,
    }


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failures", description=__doc__)
    parser.add_argument("--steps", type=int, default=500, help="of each script [%(default)s]")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds a script may take [%(default)s]")
    parser.add_argument("--only", nargs="*", choices=list(LOGGERS), help="these loggers")
    parser.add_argument("--failure", nargs="*", choices=list(FAILURES), help="these failures")
    parser.add_argument("--json", type=Path, default=JSON, help="where the rows go [%(default)s]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
