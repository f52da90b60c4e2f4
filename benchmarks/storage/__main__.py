"""`python -m benchmarks.storage` (`make bench-storage`): what the archive costs and how fast it answers.

The same generated history (`generate`) is kept by our archive, by MLflow's SQLite store and by DuckDB, one after
another, each in a folder that is deleted afterwards: points stored a second, bytes on disk a point, and five questions
with their median and 99th percentile; beside them the processor time, which means something on a busy machine, too.
`--points 100M` is the whole of it (10,000 runs); MLflow gets at most `--mlflow-points`, for it takes hours otherwise.
Prints a table; `--json FILE` has everything.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .duck import Duck
from .generate import runs
from .mlflow_sqlite import Mlflow
from .ours import Ours
from .questions import QUESTIONS, WANTED_BYTES, WANTED_MS, WANTED_RATE, Store, asked

STORES: dict[str, Callable[[Path], Store]] = {"ours": Ours, "duckdb": Duck, "mlflow": Mlflow}
UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}


def main(arguments: list[str]) -> int:
    """Measure and print; 0 where ours reached what is wanted of it, or was not measured."""
    options = _options(arguments)
    results = []
    for name in options.stores:
        points = min(options.points, options.mlflow_points) if name == "mlflow" else options.points
        results.append(measure(name, points, options.times, options.folder))
        _show(results[-1])
        _keep(results, options.json)
    print(table(results))
    return 0 if all(reached(result) for result in results if result["store"] == Ours.name) else 1


def _keep(results: list[dict[str, Any]], file: Path | None) -> None:
    """What has been measured so far."""
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        wanted = {"p50_ms": WANTED_MS, "bytes_per_point": WANTED_BYTES, "points_per_s": WANTED_RATE}
        told = {"wanted": wanted, "load": os.getloadavg(), "stores": results}
        file.write_text(json.dumps(told, indent=1) + "\n")


def measure(name: str, points: int, times: int, folder: Path | None) -> dict[str, Any]:
    """All of one store."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=folder) as place:
        try:
            store = STORES[name](Path(place))
        except ModuleNotFoundError as missing:
            return {"store": name, "missing": str(missing)}
        kept = {"points": 0, "runs": 0}

        def counted() -> Any:
            for run in runs(points):
                kept["points"] += run.points
                kept["runs"] += 1
                yield run

        try:
            took = store.keep(counted())
            answers = {
                what: asdict(asked(question, times, store.cpu_seconds)) for what, question in store.questions().items()
            }
            size = store.bytes_on_disk()
        finally:
            store.close()
    rate, cpu = kept["points"] / took.wall, 1e9 * took.cpu / kept["points"]
    figures = {"points_per_s": rate, "cpu_ns_per_point": cpu, "bytes_per_point": size / kept["points"]}
    return {"store": store.name, "note": store.note, **kept, **figures, "questions": answers}


def reached(result: dict[str, Any]) -> bool:
    """Whether a store does what is wanted of ours."""
    quick = all(answer["p50_ms"] <= WANTED_MS for answer in result["questions"].values())
    return quick and result["bytes_per_point"] <= WANTED_BYTES and result["points_per_s"] >= WANTED_RATE


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a column for each store."""
    there = [result for result in results if "missing" not in result]
    rows = [
        ("points, runs", [f"{result['points'] / 1e6:.1f} M, {result['runs']:,}" for result in there]),
        ("stored a second", [f"{result['points_per_s']:,.0f}" for result in there]),
        ("processor time a point, ns", [f"{result['cpu_ns_per_point']:,.0f}" for result in there]),
        ("bytes a point", [f"{result['bytes_per_point']:.2f}" for result in there]),
        *(
            (f"{what}, ms (p50 / p99; processor time)", [_answer(result, what) for result in there])
            for what in QUESTIONS
        ),
    ]
    heads = [result["store"] for result in there]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    return "\n".join([*lines, *(f"| {what} | {' | '.join(cells)} |" for what, cells in rows)])


def _answer(result: dict[str, Any], what: str) -> str:
    answer = result["questions"].get(what)
    return f"{answer['p50_ms']:,.0f} / {answer['p99_ms']:,.0f}; {answer['cpu_ms']:,.0f}" if answer else "–"


def _show(result: dict[str, Any]) -> None:
    print(f"{result['store']}: {result.get('missing', 'measured')}", file=sys.stderr, flush=True)


def _number(text: str) -> int:
    unit = UNITS.get(text[-1:], 0)
    return int(float(text[:-1]) * unit) if unit else int(text)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=_number, default=_number("100M"), help="metric points, as 10M [100M]")
    parser.add_argument(
        "--mlflow-points", type=_number, default=_number("10M"), help="at most so many for MLflow [10M]"
    )
    parser.add_argument("--stores", nargs="+", choices=tuple(STORES), default=list(STORES), help="which [all]")
    parser.add_argument("--times", type=int, default=50, help="how often a question is asked [50]")
    parser.add_argument("--folder", type=Path, help="where the stores are made [the system's for temporary files]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
