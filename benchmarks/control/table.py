"""What the rows say: means with intervals, and whether the conditions that were set beforehand hold. Pure.

Intervals hold 95 percent by Student's t over the seeds. A ratio of two arms is the geometric mean over the seeds, each
seed against itself.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean, median, stdev
from typing import NamedTuple

from .experiments import BLOCKING, CLEAN, EAGER_PLATEAU, FIXED, LATE, NOTHING, PLATEAU, REFERENCE, through_kafka
from .faults import FAULTS
from .recipe import Row

T95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""The 97.5th percentile of Student's t with 1, 2, 3... degrees of freedom (Fisher and Yates 1963, table III)."""
EARLY = "early stop, best checkpoint"
STOP_ONLY = "stop-only (KillLossSpike)"
SCHEDULES = ("cosine", PLATEAU, EAGER_PLATEAU)
NEAR = 1.05
"""A training has recovered that ends within 5 percent of the same one without the fault."""
STABLE_WITHIN, COSTS = 1.10, 1.01
TWOFOLD, OF_CONSTANT, OF_SCHEDULER = 2.0, 0.40, 0.904
BLOCKED = 0.1
"""Seconds of a training: under it, nothing was blocked."""


class Interval(NamedTuple):
    """A mean and how far to either side it is sure; infinite for a single value."""

    mean: float
    half: float


class Finding(NamedTuple):
    """One condition: what was asked, what was seen."""

    asked: str
    seen: str
    held: bool


def interval(values: Sequence[float]) -> Interval:
    """
    Raises:
        ValueError: there are no values.
    """
    if len(values) < 2:
        return Interval(fmean(values), math.inf)
    t = T95[min(len(values) - 1, len(T95)) - 1]
    return Interval(fmean(values), t * stdev(values) / math.sqrt(len(values)))


def ratio(ours: Sequence[Row], theirs: Sequence[Row], of: Callable[[Row], float | None]) -> Interval | None:
    """By how much ours is theirs, seed by seed; None where no seed has both. A loss that is not finite is no number."""
    by_seed = {row.seed: of(row) for row in theirs}
    logs = []
    for row in ours:
        mine, other = of(row), by_seed.get(row.seed)
        if mine is not None and other is not None:
            logs.append(math.log(mine / other))
    if not logs:
        return None
    mean, half = interval(logs)
    return Interval(math.exp(mean), math.exp(mean + half) - math.exp(mean))


def final(row: Row) -> float | None:
    return row.final_val_loss


def best(row: Row) -> float | None:
    return row.best_val_loss


def arms(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """By arm, in the order in which they were trained."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.arm, []).append(row)
    return found


# ------------------------------------------------------------------------------------------------------- overfitting


def with_early_stop(rows: Sequence[Row]) -> list[Row]:
    """Early stopping trains as the constant recipe does, and keeps the best checkpoint that it has seen."""
    stopped = [
        replace(row, arm=EARLY, final_val_loss=best(row), alive=False, seconds=0.0)
        for row in rows
        if row.arm == "constant"
    ]
    return [*rows, *stopped]


def overfitting_table(rows: Sequence[Row]) -> str:
    heads = ("arm", "final loss", "best on the way", "of constant's", "actions", "answers lost", "undone", "blocked s")
    known = arms(rows)
    lines = []
    for name, mine in known.items():
        of_constant = _shown(ratio(mine, known.get("constant", []), final))
        losses = [_loss(mine, final), _loss(mine, best), of_constant]
        actions, undone = _efforts(mine)
        lost = str(sum(row.lost_commands for row in mine))
        lines.append([name, *losses, actions, lost, undone, _mean((row.blocked_s for row in mine), 2)])
    return markdown(heads, lines)


def overfitting_findings(rows: Sequence[Row]) -> list[Finding]:
    known = arms(rows)
    if "constant" not in known:
        return []
    found = []
    overfits = ratio(known["constant"], known[EARLY], final)
    if overfits is not None:
        asked = "the constant recipe overfits at least twofold"
        found.append(Finding(asked, f"{_shown(overfits)} of its own best", overfits.mean >= TWOFOLD))
    for name in (BLOCKING, *map(through_kafka, LATE)):
        mine = known.get(name, [])
        found += _compared(name, mine, "constant's final loss", known["constant"], OF_CONSTANT)
        for scheduler in SCHEDULES:
            found += _compared(name, mine, f"the final loss of {scheduler}", known.get(scheduler, []), OF_SCHEDULER)
        found += _compared(name, mine, "early stopping's, with the run still alive", known[EARLY], 1.0)
        found += _about_us(name, mine)
    return found


def _compared(name: str, mine: Sequence[Row], what: str, theirs: Sequence[Row], bound: float) -> list[Finding]:
    seen = ratio(mine, theirs, final)
    if seen is None:
        return []
    return [Finding(f"{name}: at most {bound:g} of {what}", _shown(seen), seen.mean <= bound)]


def _about_us(name: str, mine: Sequence[Row]) -> list[Finding]:
    if not mine:
        return []
    same = sum(row.replayed is True for row in mine)
    found = [Finding(f"{name}: replay reproduces every decision", f"{same} of {len(mine)} runs", same == len(mine))]
    if name != BLOCKING:
        most = max(row.blocked_s for row in mine)
        found.append(Finding(f"{name}: the trainer is never blocked", f"{most:.2f} s in the worst run", most < BLOCKED))
    return found


def _efforts(mine: Sequence[Row]) -> list[str]:
    return [_mean(row.interventions for row in mine), _mean(row.wasted_steps for row in mine)]


# ---------------------------------------------------------------------------------------------------- learning rates


def learning_rates_table(rows: Sequence[Row]) -> str:
    heads = (
        "learning rate",
        "fixed: final validation loss",
        "governed",
        "of the best safe run's",
        "actions",
        "steps undone",
    )
    safe = best_safe(rows)
    lines = []
    for rate, of_rate in _by_setting(rows):
        known = arms(of_rate)
        mine = known.get(BLOCKING, [])
        losses = [_loss(known.get(FIXED, []), final), _loss(mine, final), _shown(ratio(mine, safe, final))]
        lines.append([rate, *losses, *_efforts(mine)])
    return markdown(heads, lines)


def best_safe(rows: Sequence[Row]) -> list[Row]:
    """The fixed recipe at the rate at which its mean final loss is lowest."""
    settings = [arms(of_rate).get(FIXED, []) for _, of_rate in _by_setting(rows)]
    finite = [mine for mine in settings if mine and all(final(row) is not None for row in mine)]
    return min(finite, key=_level, default=[])


def learning_rates_findings(rows: Sequence[Row]) -> list[Finding]:
    safe = best_safe(rows)
    failed, found = [], list[Finding]()
    for rate, of_rate in _by_setting(rows):
        known = arms(of_rate)
        mine, fixed = known.get(BLOCKING, []), known.get(FIXED, [])
        worse = ratio(fixed, safe, final)
        failed += [rate] if worse is None or worse.mean > STABLE_WITHIN else []
        seen = ratio(mine, safe, final)
        if seen is not None:
            asked = f"at {rate}: within {STABLE_WITHIN:g} of the best safe run"
            found.append(Finding(asked, _shown(seen), seen.mean <= STABLE_WITHIN))
        if rate == f"{REFERENCE:g}":
            found += _costs_nothing(rate, mine, fixed)
    return [Finding("the fixed recipe fails at some rates", ", ".join(failed) or "at none", bool(failed)), *found]


def _costs_nothing(rate: str, mine: Sequence[Row], fixed: Sequence[Row]) -> list[Finding]:
    cost, acted = ratio(mine, fixed, final), sum(row.interventions for row in mine)
    if cost is None:
        return []
    held = cost.mean <= COSTS and acted == 0
    asked = f"at the reference, {rate}: at most 1% worse, no intervention"
    return [Finding(asked, f"{_shown(cost)}, {acted} interventions", held)]


# ------------------------------------------------------------------------------------------------------------ faults


def faults_table(rows: Sequence[Row]) -> str:
    heads = ("arm", *FAULTS, "all", "steps wasted", "steps to detect", "steps to recover")
    lines = []
    for name, mine in arms(row for row in rows if row.setting != CLEAN).items():
        shares = [_share([row for row in mine if row.setting == fault]) for fault in FAULTS]
        delays = [_median(row.detect_steps for row in mine), _median(row.recover_steps for row in mine)]
        lines.append([name, *shares, _share(mine), _mean(row.wasted_steps for row in mine), *delays])
    return markdown(heads, lines)


def judged_faults(rows: Sequence[Row]) -> list[Row]:
    """Every row with a fault, judged by the same seed without one, and those of stopping, made from those of `nothing`.
    Ours stand last.
    """
    clean = {row.seed: row for row in rows if row.setting == CLEAN and row.arm == NOTHING}
    judged = []
    for row in rows:
        if row.setting == CLEAN:
            judged.append(row)
        elif row.seed in clean:
            judged.append(_judged(row, clean[row.seed]))
            judged += [_stopped(judged[-1])] if row.arm == NOTHING else []
    return sorted(judged, key=_is_ours)


def _is_ours(row: Row) -> bool:
    return row.arm.startswith("ours")


def _judged(row: Row, clean: Row) -> Row:
    level, ends = final(clean), final(row)
    assert level is not None  # without a fault nothing diverges
    if ends is None or ends > NEAR * level:
        return replace(row, recovered=False, wasted_steps=row.steps - row.fault_at)
    before = [loss for done, loss in row.curve if done <= row.fault_at and loss is not None]
    after = [(done, loss) for done, loss in row.curve if done > row.fault_at and loss is not None]
    back = next((done for done, loss in after if before and loss <= before[-1]), None)
    return replace(row, recovered=True, recover_steps=None if back is None else back - row.fault_at)


def _stopped(row: Row) -> Row:
    """The training that did nothing, stopped where KillLossSpike would have: a person has to come."""
    if row.stopped_at is None:
        return replace(row, arm=STOP_ONLY)
    detected = row.stopped_at - row.fault_at
    return replace(
        row, arm=STOP_ONLY, alive=False, recovered=False, detect_steps=detected, wasted_steps=row.steps - row.fault_at
    )


def faults_findings(rows: Sequence[Row]) -> list[Finding]:
    found = []
    quiet = [row for row in rows if row.setting == CLEAN and row.arm == BLOCKING]
    if quiet:
        acted = sum(row.interventions for row in quiet)
        found.append(Finding("without a fault: no intervention", f"{acted} in {len(quiet)} runs", acted == 0))
    known = arms(row for row in rows if row.setting != CLEAN)
    shares = {name: fmean(bool(row.recovered) for row in mine) for name, mine in known.items()}
    others = {name: share for name, share in shares.items() if not name.startswith("ours")}
    if BLOCKING in shares and others:
        rival = max(others, key=lambda name: others[name])
        seen = f"{shares[BLOCKING]:.0%} against {others[rival]:.0%} ({rival})"
        asked = "recovers more without a person than any of the others"
        found.append(Finding(asked, seen, shares[BLOCKING] > others[rival]))
    return found


# ------------------------------------------------------------------------------------------------------------- words


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(cells)} |" for cells in (heads, *lines)]
    return "\n".join([rows[0], "|" + "---|" * len(heads), *rows[1:]])


def findings_table(findings: Iterable[Finding]) -> str:
    return markdown(("asked", "seen", ""), [[one.asked, one.seen, "yes" if one.held else "**no**"] for one in findings])


def _by_setting(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    ordered = sorted(rows, key=lambda row: float(row.setting))
    return [(setting, list(of_it)) for setting, of_it in groupby(ordered, key=lambda row: row.setting)]


def _level(rows: Sequence[Row]) -> float:
    return fmean(math.inf if (loss := final(row)) is None else loss for row in rows)


def _loss(rows: Sequence[Row], of: Callable[[Row], float | None]) -> str:
    values = [of(row) for row in rows]
    finite = [value for value in values if value is not None]
    if not finite:
        return "not finite" if values else "–"
    lost = len(values) - len(finite)
    return _shown(interval(finite)) + (f" ({lost} not finite)" if lost else "")


def _shown(value: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{value.mean:.3f}" + (f" ± {value.half:.3f}" if math.isfinite(value.half) else "")


def _mean(values: Iterable[float], digits: int = 1) -> str:
    known = list(values)
    return f"{fmean(known):.{digits}f}" if known else "–"


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):g}" if known else "–"


def _share(rows: Sequence[Row]) -> str:
    return f"{sum(bool(row.recovered) for row in rows)} of {len(rows)}" if rows else "–"
