"""`python -m benchmarks.page` (`make bench-page`): how soon the control room shows a fleet of 1,000 runs and a curve of
a million points, how fast its API answers, and how long a fault in training takes to be seen on the page.

The archive is made here (`fleet`), in a folder that is deleted afterwards, and served by `pilothouse serve`; a real
Chromium looks at it. For the faults a whole stack is started, on the embedded broker or on the Apache Kafka that
`--kafka-home` names. Prints a table; `--json FILE` has everything. Ends with status 1 where the fleet takes a second or
more.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pilothouse
from pilothouse.tests.browser import browser
from pilothouse.tests.endpoint_fixture import start_endpoint
from pilothouse.tests.served_page import served_page
from pilothouse.tests.stack_fixture import running_stack

from . import fleet, seeing, sight

WANTED_MS = 1_000.0
PARTS = ("views", "sight")


def main(arguments: Sequence[str]) -> int:
    """Measure, print, keep; whether the fleet was there in time."""
    options = _options(arguments)
    found: dict[str, Any] = {"version": pilothouse.__version__, "load_before": os.getloadavg()}
    for part in options.parts:
        found |= _views(options) if part == "views" else _sight(options)
        _keep(found, options.json)
    print(table(found))
    loads = found.get("views", {})
    return int(any(load["there"]["p50"] >= WANTED_MS for name, load in loads.items() if name.startswith("fleet")))


def _views(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-page-") as name, ExitStack() as held:
        folder = Path(name)
        endpoint = start_endpoint(folder / "archive")
        held.callback(endpoint.terminate)
        began = time.monotonic()
        values = fleet.keep(endpoint.clickhouse_url, options.runs)
        took = time.monotonic() - began
        page = held.enter_context(served_page(folder, endpoint.clickhouse_url))
        tab = held.enter_context(browser(folder / "browser"))
        tab.sized(1200)
        going = options.runs + 1 - options.runs // fleet.ENDED_OF
        shown = {what: asdict(load) for what, load in seeing.views(tab, page, going, options.times).items()}
        answers = seeing.answers(page, options.times)
    about = {"runs": options.runs + 1, "going_on": going, "values": values, "archived_s": round(took, 1)}
    return {"fleet": about, "views": shown, "api": answers}


def _sight(options: argparse.Namespace) -> dict[str, Any]:
    kafka = ("--kafka-home", str(options.kafka_home)) if options.kafka_home else ()
    with tempfile.TemporaryDirectory(prefix="bench-page-") as name, ExitStack() as held:
        folder = Path(name)
        stack = held.enter_context(running_stack(folder / "stack", "--page-port", "0", *kafka))
        tab = held.enter_context(browser(folder / "browser"))
        tab.sized(1200)
        seen = sight.sights(stack, tab, sight.page_of(stack.data_dir), options.times)
    broker = "apache kafka" if options.kafka_home else "embedded"
    return {
        "sight": {view: {what: asdict(each) for what, each in told.items()} for view, told in seen.items()}
        | {"broker": broker}
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = []
    if "views" in found:
        about = found["fleet"]
        lines += [
            f"{about['runs']:,} runs, {about['going_on']:,} of them going on, {about['values']:,} values",
            "",
            "| view | first paint, ms (p50 / worst) | there, ms (p50 / worst) | KB over the wire |",
            "|---|---|---|---|",
            *(f"| {name} | {_of(load['first_paint'])} | {_of(load['there'])} | {load['wire_bytes'] / 1e3:.0f} |"
              for name, load in found["views"].items()),
            "",
            "| asked of the API | ms (p50 / worst) | KB |",
            "|---|---|---|",
            *(f"| {name} | {_of(told)} | {told['bytes'] / 1e3:.1f} |" for name, told in found["api"].items()),
            "",
        ]  # fmt: skip
    if "sight" in found:
        told = found["sight"]
        views = {view: told[view] for view in ("fleet", "run")}
        lines += [
            f"| from the first bad step ({told['broker']} broker) | to the archive, ms (p50 / worst) | to the page |",
            "|---|---|---|",
            *(f"| {view} | {_of(times['archived_ms'])} | {_of(times['sight_ms'])} |" for view, times in views.items()),
            "",
        ]  # fmt: skip
    before, after = (" ".join(f"{each:.1f}" for each in load) for load in (found["load_before"], os.getloadavg()))
    return "\n".join([*lines, f"load average before {before}, after {after}, on {os.cpu_count()} cores"])


def _of(times: dict[str, Any]) -> str:
    return f"{times['p50']:,.0f} / {times['worst']:,.0f}"


def _keep(found: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found | {"load_after": os.getloadavg()}, indent=1) + "\n")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000, help="beside the one of a million steps [1,000]")
    parser.add_argument("--times", type=int, default=10, help="how often each thing is done [10]")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured [all]")
    parser.add_argument("--kafka-home", type=Path, help="an unpacked Apache Kafka: faults are seen through it")
    parser.add_argument("--json", type=Path, help="keep everything in this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
