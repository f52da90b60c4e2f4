"""`python -m benchmarks.pipeline` (`make bench-pipeline`): what the whole way carries, how long it takes, and what
happens where it is too much or somebody dies.

For each broker (the embedded one; Apache Kafka where `--kafka-home` or PILOTHOUSE_TEST_KAFKA names one) the parts that
are asked for, one after the other, each on a stack of its own that is deleted afterwards. Prints tables; `--json FILE`
has everything, after every part; `--document FILE` gets the tables between its two marks. Ends with status 1 where a
target is missed: on a machine that others use, look at the floor and the CPU time beside it.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..detection.table import written_into
from . import endurance, faults, table
from .latency import latency
from .throughput import drain

LOAD = {"runs": 16.0, "ranks": 64.0, "steps_per_second": 10.0}
"""10,240 rank-steps a second of 1,024 ranks."""
WIDE = {"runs": 10.0, "ranks": 1_000.0, "steps_per_second": 1.0}
"""10,000 ranks: of such runs the SDK sends a record a second and rank for its steps, and its heart beats as often."""
BACKLOG_SECONDS = {"embedded": 15.0, "kafka": 30.0}
"""Of the load; the embedded broker keeps its log in memory."""
FLOOD_SECONDS = 30.0
CHURN = {"runs": 8.0, "ranks": 8.0, "steps_per_second": 10.0, "life_seconds": 20.0}
LITTLE = {"runs": 4.0, "ranks": 4.0, "steps_per_second": 10.0}
GOVERNORS = (1, 2, 4)
BROKERS = ("kafka", "embedded")

Part = Callable[[str, Path | None, argparse.Namespace], Any]


def _latency(broker: str, home: Path | None, options: argparse.Namespace) -> list[Any]:
    loads: list[Mapping[str, float] | None] = [None] if options.quick else [None, LOAD]
    return [latency(broker, home, options.seconds, load) for load in loads]


def _backlog(broker: str, home: Path | None, options: argparse.Namespace) -> list[Any]:
    load = {**LITTLE, "seconds": 10.0} if options.quick else {**LOAD, "seconds": BACKLOG_SECONDS[broker]}
    return [drain(broker, home, count, load) for count in options.governors]


def _steady(broker: str, home: Path | None, options: argparse.Namespace) -> list[Any]:
    loads = [LOAD] if options.quick else [LOAD, WIDE]
    return [endurance.steady(broker, home, load, options.seconds) for load in loads]


def _saturated(broker: str, home: Path | None, options: argparse.Namespace) -> list[Any]:
    seconds = 5.0 if options.quick else FLOOD_SECONDS
    return [endurance.saturated(broker, home, LOAD, seconds)]


def _killed(broker: str, home: Path | None, _: argparse.Namespace) -> list[Any]:
    return [faults.killed(broker, home)]


def _orphaned(broker: str, home: Path | None, options: argparse.Namespace) -> list[Any]:
    load = {**LOAD, "steps_per_second": options.shared_rate}
    return [faults.orphaned(broker, home, load)]


def _soak(broker: str, home: Path | None, options: argparse.Namespace) -> list[Any]:
    return [endurance.soak(broker, home, CHURN, options.soak_minutes)]


PARTS: dict[str, Part] = {
    "latency": _latency,
    "backlog": _backlog,
    "steady": _steady,
    "saturated": _saturated,
    "killed": _killed,
    "orphaned": _orphaned,
    "soak": _soak,
}


def main(arguments: list[str]) -> int:
    """Measure and print; 0 where every target that was measured is reached."""
    options = _options(arguments)
    told: dict[str, Any] = {"machine": _machine(), "parts": _kept(options)}
    for broker in options.brokers:
        home = options.kafka_home if broker == "kafka" else None
        if broker == "kafka" and home is None:
            print("not measured: Apache Kafka; name one with --kafka-home or PILOTHOUSE_TEST_KAFKA", file=sys.stderr)
            continue
        for part in options.parts:
            told["parts"].append(_measured(part, broker, home, options))
            _write(told, options.json)
    text = table.text(told)
    print(text)
    if options.document is not None:
        options.document.write_text(written_into(options.document.read_text(), [text]))
    return 0 if all(finding.held for finding in table.findings(told)) else 1


def _kept(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What was measured before and is not measured now."""
    if not options.keep or options.json is None or not options.json.exists():
        return []
    anew = {(part, broker) for part in options.parts for broker in options.brokers}
    return [one for one in json.loads(options.json.read_text())["parts"] if (one["part"], one["broker"]) not in anew]


def _measured(part: str, broker: str, home: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    load = os.getloadavg()[0]
    began = time.time()
    print(f"{broker}: {part}…", file=sys.stderr, flush=True)
    told: dict[str, Any] = {"part": part, "broker": broker, "load_before": load}
    try:
        told["rows"] = [asdict(row) for row in PARTS[part](broker, home, options)]
    except (RuntimeError, TimeoutError) as error:  # of one part: the others are still worth measuring
        told |= {"rows": [], "failed": str(error)}
        print(f"{broker}: {part} failed: {error}", file=sys.stderr, flush=True)
    return {**told, "load_after": os.getloadavg()[0], "seconds": time.time() - began}


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _write(told: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(told, indent=1) + "\n")


def _options(arguments: list[str]) -> argparse.Namespace:
    named = os.environ.get("PILOTHOUSE_TEST_KAFKA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", nargs="+", choices=BROKERS, default=BROKERS, help="which [both]")
    parser.add_argument("--parts", nargs="*", choices=tuple(PARTS), default=tuple(PARTS), help="which [all]")
    parser.add_argument(
        "--kafka-home", type=Path, default=Path(named) if named else None, help="as `pilothouse up` has it"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of latency and of the steady load [%(default)g]")
    parser.add_argument("--governors", type=int, nargs="+", default=GOVERNORS, help="that share a backlog [1 2 4]")
    parser.add_argument("--shared-rate", type=float, default=5.0, help="steps a second that two share [%(default)g]")
    parser.add_argument("--soak-minutes", type=float, default=5.0, help="60 for the whole hour [%(default)g]")
    parser.add_argument("--quick", action="store_true", help="less of each, to see that it works")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--keep", action="store_true", help="keep what that file has and is not measured now")
    parser.add_argument("--document", type=Path, help="put the tables into this file, between its two marks")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
