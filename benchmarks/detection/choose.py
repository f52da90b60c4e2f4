"""`python -m benchmarks.detection.choose`: what the loss detector's bounds cost and find, and which of them to take.

Prints the curve of false alarms against spikes and divergences found, as the threshold of `Stable` is scaled (`--curve
FILE` draws it, beside the peers of an earlier benchmark run), what each bound does alone, and a cross-validation:
bounds chosen on all made series and all repositories but one, scored on the one that was left out; the same for made
families. A choice finds most at no more than `--budget` false episodes on either kind of data.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .corpus import read_corpus
from .families import faulty_series, healthy_series
from .score import Score, judge
from .traces import Bounds, Trace, alarms_of, drifting, record

BUDGET = 0.25
"""False episodes of `Stable` and `Finite` per 10,000 steps: all alarms together may have 0.3."""
KINDS = ("transient_spike", "sustained_spike", "slow_divergence", "fast_divergence", "spike", "diverged")
FAULTS_A_SEED = 4
"""So many made series of each fault for each of a healthy family: a share needs more of them than a rate."""
FACTORS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.8, 2.2, 3.0)
DRIFTS: tuple[dict[str, float], ...] = (
    {}, {"BOUND": 6.0}, {"BOUND": 10.0}, {"SLACK": 0.5}, {"SLACK": 1.0},
)  # fmt: skip
ALONE: dict[str, tuple[float, ...]] = {
    "TWO_Z": (5.0, 6.0, 7.0, 8.0, 10.0),
    "THREE_Z": (4.0, 4.5, 5.0, 5.5, 6.0),
    "LEAST_OF_THREE": (3.0, 3.75, 4.5, 5.0),
    "JOINT_TWO_Z": (3.0, 3.5, 4.0, 5.0, 6.0),
    "JOINT_THREE_Z": (3.0, 3.2, 3.5, 99.0),
    "STRONG_Z": (2.5, 3.0, 3.5, 99.0),
    "STRONG_GRAD_Z": (6.0, 8.0, 10.0),
    "COINCIDENCE": (1e-5, 3e-5, 1e-4, 1e-3, 1.0),
    "LONE_Z": (5.0, 6.0, 6.5, 7.0, 8.0, 12.0),
    "LONE_RISE": (0.1, 0.15, 0.2, 0.3, 0.5),
    "LEAST_RISE": (0.0, 0.03, 0.05, 0.08, 0.12),
}
"""Values of one bound while the others stay; 99 is never."""
TOGETHER: dict[str, tuple[float, ...]] = {
    "TWO_Z": (7.0, 8.0, 10.0),
    "THREE_Z": (4.5, 5.0, 5.5, 6.0),
    "JOINT_TWO_Z": (3.5, 4.0, 5.0),
    "COINCIDENCE": (1e-5, 3e-5, 1e-4),
    "LONE_Z": (6.0, 6.5, 7.0, 8.0),
}
"""What is chosen among: every combination."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one choice over one trace."""

    rows: int
    false: int
    found: int
    missed: int


Table = NDArray[np.int64]
"""By choice and trace: rows, false episodes, incidents found, missed."""


def outcome(trace: Trace, bounds: Bounds, factor: float = 1.0) -> Outcome:
    score = Score()
    judge(score, trace.series, alarms_of(trace, bounds, factor), KINDS)
    return Outcome(score.rows, score.false, sum(score.found.values()), sum(score.missed.values()))


def totals(outcomes: Iterable[Outcome]) -> tuple[float, float, str]:
    """False episodes per 10,000 steps, the share found (1 where there was nothing to find), and both in words."""
    known = list(outcomes)
    rows, false = sum(one.rows for one in known), sum(one.false for one in known)
    found, missed = sum(one.found for one in known), sum(one.missed for one in known)
    rate, share = 10_000 * false / max(rows, 1), found / (found + missed) if found + missed else 1.0
    return rate, share, f"{rate:.2f} | {100 * share:.1f}% ({found}/{found + missed})"


def curve(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """For each factor on the threshold and each kind of data, false episodes and share found."""
    points = []
    for factor in FACTORS:
        for data in sorted({trace.data for trace in traces}):
            rate, share, words = totals(outcome(trace, Bounds(), factor) for trace in traces if trace.data == data)
            points.append({"factor": factor, "data": data, "false_per_10k": rate, "recall": share, "words": words})
    return points


def alone(traces: Sequence[Trace]) -> list[str]:
    """Lines of a table: each bound by itself."""
    lines = ["| bound | value | made: false | found | real: false | found |", "|---|---|---|---|---|---|"]
    for name, values in ALONE.items():
        for value in values:
            bounds = replace(Bounds(), **{name: value})
            words = [
                totals(outcome(trace, bounds) for trace in traces if trace.data == data)[2]
                for data in ("synthetic", "real")
            ]
            mark = " *" if value == getattr(Bounds(), name) else ""
            lines.append(f"| {name} | {value:g}{mark} | {' | '.join(words)} |")
    return lines


def choices() -> list[Bounds]:
    """All combinations; what there is now comes first, and stays where nothing is better."""
    combined = (Bounds(**dict(zip(TOGETHER, values, strict=True))) for values in product(*TOGETHER.values()))
    return [Bounds(), *(bounds for bounds in combined if bounds != Bounds())]


def measured(traces: Sequence[Trace], all_bounds: Sequence[Bounds]) -> Table:
    """The outcomes of every choice over every trace."""
    return np.array(
        [
            [(one.rows, one.false, one.found, one.missed) for one in (outcome(trace, bounds) for trace in traces)]
            for bounds in all_bounds
        ]
    )


def best(table: Table, is_real: NDArray[np.bool_], within: NDArray[np.bool_], budget: float = BUDGET) -> int:
    """The choice that finds most over the traces `within`, made and real counting alike, and keeps to the budget on
    both; among equals the one with the fewest false episodes, then the first.
    """
    worth = np.zeros(len(table))
    false = np.zeros(len(table))
    for kind in (is_real, ~is_real):
        rows, wrong, found, missed = table[:, kind & within].sum(axis=1).T
        rate = 10_000 * wrong / np.maximum(rows, 1)
        worth += np.where(found + missed > 0, found / np.maximum(found + missed, 1), 1.0)
        worth -= 10.0 * np.maximum(rate - budget, 0.0)
        false += rate
    return int(np.lexsort((np.arange(len(table)), false, -worth.round(9)))[0])


def cross_validated(
    table: Table, traces: Sequence[Trace], data: str, part_of: Callable[[Trace], str], budget: float = BUDGET
) -> tuple[list[Outcome], dict[int, list[str]]]:
    """What choices made without a part score on it, over all parts; and for each choice the parts it was made for."""
    is_real = np.array([trace.data == "real" for trace in traces])
    parts = np.array([part_of(trace) if trace.data == data else "" for trace in traces])
    held_out: list[Outcome] = []
    made_for: dict[int, list[str]] = {}
    for part in sorted(set(parts) - {""}):
        chosen = best(table, is_real, parts != part, budget)
        made_for.setdefault(chosen, []).append(part)
        held_out += [Outcome(*map(int, one)) for one in table[chosen, parts == part]]
    return held_out, made_for


def main(arguments: list[str]) -> int:
    """Measure, print, draw."""
    options = _options(arguments)
    faulty = faulty_series(FAULTS_A_SEED * options.seeds, only=KINDS)
    series = [("synthetic", made) for made in (*healthy_series(options.seeds), *faulty)]
    if options.runs is not None:
        series += [("real", run) for run in read_corpus(options.runs)]
    for drift in DRIFTS[1:] if options.drift else ():
        with drifting(**drift):
            traces = [record(*one) for one in series]
        _say(f"drift {drift}", traces)
    traces = [record(*one) for one in series]
    _say("as it is", traces)
    points = curve(traces)
    print("\n| threshold | data | false | found |\n|---|---|---|---|")
    for point in points:
        print(f"| x {point['factor']:g} | {point['data']} | {point['words']} |")
    print("\n" + "\n".join(alone(traces)) + "\n", flush=True)
    if options.curve is not None:
        draw(points, options.peers, options.curve)
    if not options.quick:
        _validate(traces, options.budget)
    return 0


def _validate(traces: list[Trace], budget: float) -> None:
    all_bounds = choices()
    table = measured(traces, all_bounds)
    is_real = np.array([trace.data == "real" for trace in traces])
    chosen = best(table, is_real, np.ones(len(traces), dtype=bool), budget)
    print(f"{len(all_bounds)} choices at {budget} false episodes; on everything: {_words(all_bounds[chosen])}")
    _say_outcomes("  now", table[0], is_real)
    _say_outcomes("  chosen on everything", table[chosen], is_real)
    for data, what, part_of in (
        ("real", "repository", lambda trace: trace.series.group),
        ("synthetic", "family", lambda trace: trace.series.family),
    ):
        held_out, made_for = cross_validated(table, traces, data, part_of, budget)
        print(f"  chosen without the {what} it is scored on ({data}): {totals(held_out)[2]}")
        for index, parts in sorted(made_for.items(), key=lambda item: -len(item[1])):
            few = ", ".join(parts) if len(parts) <= 3 else f"{len(parts)} of them"
            print(f"    {_words(all_bounds[index])}: without {few}")


def _say(name: str, traces: Sequence[Trace]) -> None:
    for data in ("synthetic", "real"):
        print(f"{name}, {data}: {totals(outcome(t, Bounds()) for t in traces if t.data == data)[2]}", flush=True)


def _say_outcomes(name: str, row: Table, is_real: NDArray[np.bool_]) -> None:
    for data, kind in (("synthetic", ~is_real), ("real", is_real)):
        print(f"{name}, {data}: {totals(Outcome(*map(int, one)) for one in row[kind])[2]}", flush=True)


def _words(bounds: Bounds) -> str:
    now = asdict(Bounds())
    changed = [f"{name} {value:g}" for name, value in asdict(bounds).items() if value != now[name]]
    return ", ".join(changed) or "what there is now"


def draw(points: Sequence[dict[str, Any]], peers: Path, file: Path) -> None:
    """The curve, and the peers' points where a benchmark run has left any.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, data in zip(axes, ("synthetic", "real"), strict=True):
        ours = [point for point in points if point["data"] == data]
        x = [max(point["false_per_10k"], 0.02) for point in ours]
        axis.plot(x, [point["recall"] for point in ours], "o-", color="tab:red", label="pilothouse, threshold scaled")
        for point, at in zip(ours, x, strict=True):
            if point["factor"] in (0.5, 0.7, 1.0, 1.5, 2.2):
                axis.annotate(f"x{point['factor']:g}", (at, point["recall"]), (4, -10), textcoords="offset points")
        for number, (name, rate, share) in enumerate(_peers(peers, data)):
            axis.plot(max(rate, 0.02), share, "sDv^<>ph"[number % 8], label=name)
        axis.axvline(0.3, color="grey", linestyle=":")
        axis.set_xscale("log")
        axis.set_title(data)
        axis.set_xlabel("false episodes per 10,000 steps (0.02: none)")
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("spikes and divergences found")
    axes[0].legend(fontsize="x-small", loc="lower right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


def _peers(file: Path, data: str) -> list[tuple[str, float, float]]:
    if not file.exists():
        return []
    told = []
    for row in json.loads(file.read_text())["rows"]:
        counts = {kind: row["incidents"][kind] for kind in KINDS if kind in row["recall"]}
        found = sum(row["recall"][kind] * count for kind, count in counts.items())
        if row["data"] == data and row["detector"] != "pilothouse" and counts:
            told.append((row["detector"], row["false_per_10k"], found / sum(counts.values())))
    return told


def _options(arguments: list[str]) -> argparse.Namespace:
    corpus = os.environ.get("PILOTHOUSE_CORPUS")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection.choose", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="how many series of each made family")
    parser.add_argument("--runs", type=Path, default=Path(corpus) if corpus else None, help="a folder of real runs")
    parser.add_argument("--curve", type=Path, help="draw the curve into this file (.svg or .png)")
    parser.add_argument("--peers", type=Path, default=Path("build/bench/detection.json"))
    parser.add_argument("--drift", action="store_true", help="try the bounds of the drift detector as well")
    parser.add_argument("--budget", type=float, default=BUDGET, help="false episodes per 10,000 steps")
    parser.add_argument("--quick", action="store_true", help="no cross-validation")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
