"""Several runs beside each other, laid out: what `pilothouse compare` shows. Pure.

Called by the command line with what `comparison` worked out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .document import Block, Cell, Chart, Document, Items, Line, Section, Words, table
from .figures import NONE, detection, number, share, span, value_of
from .run_page import regime_table

Row = Mapping[str, Any]
MOST_DIFFERENCES = 80
TITLES = {"loss": "Training loss", "grad_norm": "Gradient norm", "lr": "Learning rate", "throughput": "Throughput"}
AXES = {"step": "step", "tokens": "tokens", "time": "seconds since the first step"}
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "outcome": ("outcome", "text"),
    "last_step": ("last step", "number"),
    "final_loss": ("final training loss", "number"),
    "final_evaluation": ("final evaluation", "number"),
    "best_evaluation": ("best evaluation", "number"),
    "stability_score": ("stability score", "number"),
    "share_well": ("share of the time well", "share"),
    "incidents": ("incidents", "number"),
    "interventions": ("interventions", "number"),
    "mttd_s": ("mean time to detect", "detection"),
    "mttr_s": ("mean time to recover", "span"),
    "steps_undone": ("steps undone", "number"),
    "wall_s": ("from first to last word", "span"),
    "device_hours": ("hours of devices", "number"),
    "wasted_share": ("of that wasted", "share"),
    "cost": ("cost", "number"),
    "energy_kwh": ("energy, kWh", "number"),
    "tokens_per_s": ("tokens per second", "number"),
}


def compare_page(found: Row, made_at: int) -> Document:
    """The page: what differs in the decisions first, for that is what is asked first."""
    sections = (
        Section("Where their decisions part", tuple(_partings(found["partings"]))),
        Section("Results side by side", tuple(_outcomes(found))),
        Section("Configuration that differs", tuple(_differences(found))),
        Section("Curves", tuple(_curves(found))),
        Section("Under stress", tuple(_stress(found))),
        Section("Groups of seeds", tuple(_groups(found))),
    )
    return Document(f"Compared: {', '.join(found['runs'])}", lead(found), sections, made_at)


def lead(found: Row) -> str:
    """The comparison in one sentence."""
    count = len(found["differences"])
    first = found["partings"][0]
    apart = first["in_substance"] or first["first"]
    parts = f"their decisions part at number {apart['number']}" if apart else "they were decided on alike"
    return f"{len(found['runs'])} runs: {count} thing{'' if count == 1 else 's'} told differently; {parts}."


def _partings(partings: Sequence[Row]) -> Iterator[Block]:
    for row in partings:
        ours, theirs = row["runs"]
        first, substance = row["first"], row["in_substance"]
        if first is None:
            yield Words(f"{ours} and {theirs}: the same {row['decisions'][0]} decisions at the same steps.", "good")
            continue
        rows: list[Sequence[Cell]] = [("at all", number(first["number"]), *first["words"])]
        if substance is not None:
            rows.append(("in more than the step", number(substance["number"]), *substance["words"]))
        yield table(("they differ", "decision", ours, theirs), rows)
        if substance is None:
            yield Words("The same was decided in both, in the same order, at other steps.")


def _outcomes(found: Row) -> Iterator[Block]:
    rows = [
        (name, *(_shown(one[key], kind) for one in found["outcomes"]))
        for key, (name, kind) in OUTCOMES.items()
        if any(one[key] is not None for one in found["outcomes"])
    ]
    judged = {one["judged_by"] for one in found["outcomes"] if one["judged_by"]}
    note = f"Evaluations are of {' and '.join(sorted(judged))}." if judged else ""
    yield table(("", *found["runs"]), rows, note)


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return NONE
    return (
        {"number": number, "share": share, "span": span, "detection": detection}[kind](value)
        if kind != "text"
        else str(value)
    )


def _differences(found: Row) -> Iterator[Block]:
    rows = [(row["name"], *map(value_of, row["values"])) for row in found["differences"]]
    if not rows:
        yield Words("Nothing that was told or found differs.", "good")
        return
    more = len(rows) - MOST_DIFFERENCES
    note = f"{more} more: `--json` has all of them." if more > 0 else ""
    yield table(("name", *found["runs"]), rows[:MOST_DIFFERENCES], note)


def _curves(found: Row) -> Iterator[Block]:
    axis = AXES[found["by"]]
    if not found["curves"]:
        why = "" if found["by"] == "step" else f": the runs tell no {found['by']}"
        yield Words(f"Nothing to draw by {found['by']}{why}.", "missing")
    for name, curve in found["curves"].items():
        lines = tuple(Line(run, tuple(tuple(point) for point in points)) for run, points in curve["points"].items())
        yield Chart(TITLES[name], axis, lines)
        rows = [(number(row["x"]), *map(number, row["values"])) for row in curve["at"]]
        yield table((axis, *found["runs"]), rows)
    for name, curves in found["evaluations"].items():
        drawn = tuple(Line(run, tuple(tuple(point) for point in points), dots=True) for run, points in curves.items())
        yield Chart(f"Evaluation: {name}", "step", drawn)


def _stress(found: Row) -> Iterator[Block]:
    if found["contrasts"]:
        yield Items(tuple(found["contrasts"]))
    else:
        yield Words("No run spends much more of its time unwell than another under the same conditions of training.")
    for run, rows in found["regimes"].items():
        if rows:
            yield Section(run, (regime_table(rows),))


def _groups(found: Row) -> Iterator[Block]:
    if not found["tests"]:
        needed = "two groups of at least two runs each; runs that differ in seeds only are one"
        yield Words(f"Significance needs {needed}.", "missing")
        return
    yield table(("group", "runs"), [(group["name"], ", ".join(group["runs"])) for group in found["groups"]])
    rows = [(row["what"], *_means(row), f"{row['p']:.3g}", row["verdict"]) for row in found["tests"]]
    least = min(row["least_p"] for row in found["tests"])
    note = (
        f"Exact permutation test of the means, two-sided; with so few runs p cannot be below {least:.3g}. "
        f"{len(rows)} things were tested: one in twenty comes out at p 0.05 by chance."
    )
    yield table(("what", "mean", "mean", "p", "verdict"), rows, note)


def _means(row: Row) -> Iterator[str]:
    for mean, name in zip(row["means"], row["groups"], strict=True):
        yield f"{number(mean)} ({name})"
