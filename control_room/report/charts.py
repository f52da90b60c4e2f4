"""The charts of one run: curves with the phases behind them and what was done to the run marked. Pure.

Called by `run_page`, with what `overview` worked out. Where a run went back, what was
undone is faint behind the curve that counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from .document import Chart, Line, Mark, MarkKind, Shade
from .figures import number

Row = Mapping[str, Any]
MOST_EVALUATED = 8
FEW_POINTS = 40
"""A curve of so few points is drawn with dots."""
TITLES = {
    "loss": "Training loss",
    "grad_norm": "Gradient norm",
    "lr": "Learning rate",
    "throughput": "Throughput",
    "step_s": "Seconds per step",
}


def run_charts(whole: Row) -> Iterator[Chart]:
    """Loss with everything marked, then evaluations, learning rate, gradient norm, and the other metrics."""
    names, metrics = whole["curves"]["names"], whole["curves"]["metrics"]
    shades, marks = tuple(shades_of(whole["stability"]["phases"], _last_step(whole))), tuple(marks_of(whole))
    for key, title in TITLES.items():
        metric = names.get(key, "")
        if metric in metrics:
            yield _curve(f"{title} ({metric})", metrics[metric], whole["attempts"], shades, marks)
        if key == "loss":
            yield from evaluation_charts(whole, shades, marks)
    for metric in metrics:
        if metric not in names.values():
            yield _curve(metric, metrics[metric], whole["attempts"], shades, marks)


def margin_chart(whole: Row) -> Chart | None:
    """The stability margin over the time of day."""
    course = whole["stability"]["course"]
    points = tuple((float(row["last_at"]), row["margin"]) for row in course)
    if not any(margin is not None for _, margin in points):
        return None
    shades = []
    for row in whole["stability"]["phases"]:
        right = row["until_at"] if row["until_at"] is not None else whole["run"]["last_at"]
        if row["phase"] != "Ended":
            shades.append(Shade(float(row["from_at"]), float(max(right, row["from_at"])), row["phase"]))
    line = Line("margin: 1 as in health, 0 at the threshold", points)
    return Chart("Stability margin", "time", (line,), tuple(shades), clock=True)


def resource_charts(rows: Sequence[Row]) -> Iterator[Chart]:
    """Each sampled number over the time of day."""
    for name in dict.fromkeys(row["name"] for row in rows):
        points = tuple((float(row["last_at"]), row["mean"]) for row in rows if row["name"] == name)
        if len(points) > 1:
            yield Chart(name, "time", (Line("", points),), clock=True)


def evaluation_charts(whole: Row, shades: tuple[Shade, ...] = (), marks: tuple[Mark, ...] = ()) -> Iterator[Chart]:
    """One chart for each metric that was evaluated, with a curve for each split."""
    values = whole["evaluations"]["values"]
    for metric in list(dict.fromkeys(row["metric"] for row in values))[:MOST_EVALUATED]:
        lines: list[Line] = []
        for split in dict.fromkeys(row["split"] for row in values if row["metric"] == metric):
            told = [row for row in values if (row["metric"], row["split"]) == (metric, split)]
            kept, undone = split_undone(told, whole["attempts"])
            parts = [(kept, False), *((part, True) for part in undone)]
            lines += [
                Line(split, tuple((float(row["step"]), _finite(row["value"])) for row in part), faint=faint, dots=True)
                for part, faint in parts
            ]
        yield Chart(f"Evaluation: {metric}", "step", tuple(lines), shades, marks)


def shades_of(phases: Sequence[Row], last_step: int) -> list[Shade]:
    """Which phase each step was judged in: where a run went back, by its last pass."""
    painted: list[Shade] = []
    for row, following in zip_longest(phases, phases[1:]):
        left = max(0, row["from_step"] or 0)
        right = last_step if following is None else max(0, following["from_step"] or 0)
        if right < left:  # the run went back from here
            right = left + 1
        if row["phase"] != "Ended" and right > left:
            painted = [*_cut(painted, left, right), Shade(float(left), float(right), row["phase"])]
    return sorted(painted, key=lambda shade: shade.left)


def _cut(shades: Sequence[Shade], left: float, right: float) -> Iterator[Shade]:
    for shade in shades:
        if shade.left < left:
            yield Shade(shade.left, min(shade.right, left), shade.phase)
        if shade.right > right:
            yield Shade(max(shade.left, right), shade.right, shade.phase)


def marks_of(whole: Row) -> Iterator[Mark]:
    """Incidents (A, B, …), interventions (1, 2, …), attempts and checkpoints, by their steps."""
    for row in whole["incidents"]:
        letter = incident_name(row["number"])
        yield Mark(row["onset_step"], "incident", f"{letter}: {row['reason']} since step {row['onset_step']}", letter)
    for order, one in enumerate(whole["interventions"], start=1):
        steps = one["applied_steps"] or [one["issued_step"] if one["issued_step"] is not None else one["proposed_step"]]
        if steps[0] is not None:
            state = one["verification"] or one["state"]
            yield Mark(steps[0], "intervention", f"{order}: {one['action']} at step {steps[0]} ({state})", str(order))
    for row in whole["attempts"][1:]:
        yield Mark(row["first_step"], "attempt", f"attempt {row['attempt']} goes on from step {row['first_step']}")
    for row in whole["checkpoints"]:
        yield Mark(row["step"], "checkpoint", f"checkpoint of step {row['step']}")


def incident_name(order: int) -> str:
    """A, B, …, Z, 27, …: incidents are letters where interventions are numbers."""
    return chr(ord("A") + order - 1) if order <= 26 else str(order)


def course_lines(rows: Sequence[Row], attempts: Sequence[Row], name: str = "") -> list[Line]:
    """The curve that counts, over all attempts, and faintly what was undone later."""
    kept, undone = split_undone(rows, attempts)
    return [_of(kept, name, faint=False), *(_of(part, name, faint=True) for part in undone)]


def split_undone(rows: Sequence[Row], attempts: Sequence[Row]) -> tuple[list[Row], list[list[Row]]]:
    """What was kept, in the order of the attempts, and of each attempt what a later one did again.

    Rows are intervals (`from_step`) or evaluations (`step`) with their `attempt`.
    """
    kept: list[Row] = []
    undone: list[list[Row]] = []
    for attempt in sorted({row["attempt"] for row in rows}):
        later = [row["first_step"] for row in attempts if row["attempt"] > attempt]
        went_on = min(later, default=None)
        own = [row for row in rows if row["attempt"] == attempt]
        part = [row for row in own if went_on is not None and _step(row) >= went_on]
        kept += [row for row in own if went_on is None or _step(row) < went_on]
        undone += [part] if part else []
    return kept, undone


def _step(row: Row) -> int:
    step: int = row["from_step"] if "from_step" in row else row["step"]
    return step


def _of(rows: Sequence[Row], name: str, *, faint: bool) -> Line:
    wide = any(row["values"] > 1 and row["least"] is not None for row in rows)
    spread = tuple(
        (float(row["from_step"]), float(row["least"]), float(row["greatest"]))
        for row in rows
        if row["least"] is not None
    )
    points = tuple((float(row["from_step"]), row["mean"]) for row in rows)
    return Line(name, points, spread if wide and len(rows) > 1 else (), faint, dots=len(rows) <= FEW_POINTS)


def _curve(
    title: str, rows: Sequence[Row], attempts: Sequence[Row], shades: tuple[Shade, ...], marks: tuple[Mark, ...]
) -> Chart:
    bad = [row for row in rows if row["non_finite"]]
    kind: MarkKind = "not finite"
    more = tuple(
        Mark(row["from_step"], kind, f"{row['non_finite']} values not finite from step {row['from_step']}")
        for row in bad
    )
    note = ""
    if bad:
        count = number(sum(row["non_finite"] for row in bad))
        note = f"{count} values were not finite, the first near step {bad[0]['from_step']}; the curve stops there."
    return Chart(title, "step", tuple(course_lines(rows, attempts)), shades, (*marks, *more), note=note)


def _last_step(whole: Row) -> int:
    steps = [row["to_step"] for rows in whole["curves"]["metrics"].values() for row in rows]
    return int(max([*steps, whole["run"]["last_step"] or 0]))


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
