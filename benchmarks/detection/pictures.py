"""A picture of each case in which ours was wrong: what was logged, when it went wrong, and who said so when.

Above the series that the case is about (a rank a line), the rows of known incidents shaded, the rows in which one had
to be found darker; below, a line a detector with its alarms. Needs matplotlib, of the `bench-detection` extra; called
by `__main__`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest
from pathlib import Path
from typing import Any

from .score import SEEN_AS, WITHIN, Mistake
from .series import Alarm, Series

LOSS = ("loss", "grad_norm")
ABOUT: dict[str, tuple[str, ...]] = {
    "Generalizing": ("loss", "val_loss"),
    "throughput_sag": ("throughput", "tokens_per_second"),
    "throughput_drop": ("throughput", "tokens_per_second"),
    "Efficient": ("throughput", "tokens_per_second", "data_wait_s", "compute_s", "comm_s"),
    "data_starved": ("data_wait_s", "compute_s"),
    "comm_bound": ("comm_s", "compute_s"),
    "straggler": ("compute_s", "comm_s"),
    "silent_corruption": ("local_grad_norm",),
    "Synchronized": ("param_norm", "local_grad_norm"),
}
"""What to look at, by kind of incident and by condition; `LOSS` for all others."""
BEFORE, AFTER = 300, 200
"""Rows to be seen around a case."""
DRAWABLE = 1e30
"""Larger numbers, like NaN and infinities, are a red line: axes overflow at them."""
LOG_FROM = 5.0
"""Largest over least value from which on an axis is logarithmic."""
DOTS_PER_INCH = 80


@dataclass(frozen=True, slots=True)
class Case:
    """One mistake, the series it was made in, and what each detector said there (ours first)."""

    data: str
    mistake: Mistake
    series: Series
    alarms: Mapping[str, Sequence[Alarm]]

    @property
    def name(self) -> str:
        """A file name: data, false or missed, what, which series and row."""
        verdict = "false" if self.mistake.is_false else "missed"
        words = f"{self.data} {verdict} {self.mistake.what} {self.series.name} row {self.mistake.row}"
        return re.sub(r"[^\w.-]+", "-", words)


def draw(cases: Sequence[Case], folder: Path, most: int) -> int:
    """Draw up to `most` of the cases, of every kind some; how many were left out. Earlier pictures there are removed.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.png"):
        earlier.unlink()
    chosen = _of_every_kind(cases)[:most]
    for case in chosen:
        _draw(case, folder / f"{case.name}.png")
    return len(cases) - len(chosen)


def _of_every_kind(cases: Sequence[Case]) -> list[Case]:
    """One of each kind, then a second of each, and so on."""

    def kind(case: Case) -> tuple[str, bool, str]:
        return case.data, not case.mistake.is_false, case.mistake.what

    by_kind = [list(alike) for _, alike in groupby(sorted(cases, key=kind), key=kind)]
    return [case for case in chain.from_iterable(zip_longest(*by_kind)) if case is not None]


def _draw(case: Case, file: Path) -> None:
    from matplotlib.figure import Figure

    names = _metrics(case)
    figure = Figure(figsize=(11, 2.2 * len(names) + 0.3 * len(case.alarms) + 1.2), layout="constrained")
    heights = [2.2] * len(names) + [0.3 * len(case.alarms) + 0.4]
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    first, last = _view(case)
    for axis, name in zip(axes, names, strict=False):
        _curve(axis, case.series, name, range(first, last + 1))
        _shade(axis, case)
    _said(axes[-1], case)
    axes[-1].set_xlim(first, last)
    axes[-1].set_xlabel("row")
    verdict = "false alarm" if case.mistake.is_false else "missed"
    figure.suptitle(f"{case.data}: {case.series.name}, {verdict}: {case.mistake.what} at row {case.mistake.row}")
    figure.savefig(file, dpi=DOTS_PER_INCH)


def _view(case: Case) -> tuple[int, int]:
    row = case.mistake.row
    allowed = 0 if case.mistake.is_false else WITHIN[case.mistake.what]
    return max(0, row - BEFORE), min(len(case.series) - 1, row + allowed + AFTER)


def _metrics(case: Case) -> list[str]:
    """Those of the case that the series has; its loss, if it has none of them."""
    what = case.mistake.what.split(" ")[0]
    wanted = ABOUT.get(what) or ABOUT.get(SEEN_AS.get(what, ("",))[0], LOSS)
    has = {"val_loss"} if case.series.evaluations else set()
    has |= set(chain.from_iterable(case.series.ranks))
    return [name for name in wanted if name in has] or ["loss"]


def _curve(axis: Any, series: Series, name: str, rows: range) -> None:
    seen: list[float] = []
    for rank, metrics in enumerate(series.ranks):
        column = series.evaluations if name == "val_loss" else dict(enumerate(metrics.get(name, ())))
        points = [(row, value) for row in rows if (value := column.get(row)) is not None]
        finite = [(row, value) for row, value in points if abs(value) < DRAWABLE]
        seen += [value for _, value in finite]
        few = len(finite) <= 60
        axis.plot(*_axes_of(finite), linewidth=0.8, marker="." if few else "", label=f"rank {rank}")
        for row, value in points:
            if not abs(value) < DRAWABLE:
                axis.axvline(row, color="red", linewidth=0.5, alpha=0.3)
        if name == "val_loss":
            break
    if seen and min(seen) > 1.0 / DRAWABLE and max(seen) > LOG_FROM * min(seen):
        axis.set_yscale("log")
    if 1 < len(series.ranks) <= 8 and name != "val_loss":
        axis.legend(fontsize="x-small", loc="upper left")
    axis.set_ylabel(name)


def _axes_of(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [row for row, _ in points], [value for _, value in points]


def _shade(axis: Any, case: Case) -> None:
    for incident in case.series.incidents:
        axis.axvspan(incident.first, max(incident.last, incident.first + 1), color="tab:orange", alpha=0.12)
        if incident.must:
            axis.axvspan(incident.first, incident.first + max(1, WITHIN[incident.kind]), color="tab:orange", alpha=0.2)
            axis.axvline(incident.first, color="tab:orange", linewidth=1.0)
    for row in (*case.series.restarts, *case.series.changes):
        axis.axvline(row, color="grey", linestyle=":", linewidth=1.0)
    if case.mistake.is_false:
        axis.axvline(case.mistake.row, color="tab:red", linewidth=1.0)


def _said(axis: Any, case: Case) -> None:
    names = list(case.alarms)
    for line, name in enumerate(names):
        colour = "tab:red" if line == 0 else "tab:blue"
        bars = [(alarm.first, max(1, alarm.last - alarm.first)) for alarm in case.alarms[name]]
        axis.broken_barh(bars, (line - 0.35, 0.7), facecolors=colour)
    axis.set_yticks(range(len(names)), names, fontsize="x-small")
    axis.set_ylim(len(names) - 0.5, -0.5)
