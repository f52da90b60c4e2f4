"""A run's checkpoints as candidates for selection: by what was suspect about them, evaluation, and stability. Pure.

A checkpoint is suspect where it was rejected, is not there any more, or was saved between the onset and the end of an
incident. The others stand first, in the order of the last evaluation up to their step, by whole percents behind the
best; of equals the greater stability margin decides, then the later step. Called by `overview`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .material import Material, Row

LOWER_IS_BETTER = ("loss", "perplexity", "ppl", "error", "err", "wer", "cer", "mae", "mse", "rmse", "bpc", "bpb", "nll")
SAME = 0.01


class Judged(NamedTuple):
    """By what checkpoints are told apart: a metric of a split, and which end of it is the better one."""

    split: str
    metric: str
    lower: bool

    @property
    def name(self) -> str:
        return f"{self.split} {self.metric}"


def judged_by(evals: Sequence[Row]) -> Judged | None:
    """The evaluation to go by: a loss of validation before another metric, the one told most often of equals."""
    counts: dict[tuple[str, str], int] = {}
    for row in evals:
        counts[row["split"], row["metric"]] = counts.get((row["split"], row["metric"]), 0) + 1
    if not counts:
        return None

    def preference(key: tuple[str, str]) -> tuple[bool, bool, int, tuple[str, str]]:
        split, metric = key
        return "valid" not in split and "eval" not in split, "loss" not in metric, -counts[key], key

    split, metric = min(counts, key=preference)
    return Judged(split, metric, lower_is_better(metric))


def lower_is_better(metric: str) -> bool:
    """By the words of its name."""
    words = metric.lower().replace("/", "_").replace("-", "_").split("_")
    return any(word in LOWER_IS_BETTER or word.endswith("loss") for word in words)


def ranked(material: Material) -> list[Row]:
    """The checkpoints with their place (1 is the best); what was suspect about each under `suspect`."""
    judged = judged_by(material.evals)
    rows = [_candidate(material, row, judged) for row in material.checkpoints]
    told = [row["evaluation"] for row in rows if row["evaluation"] is not None and not row["suspect"]]
    known = [value for value in told if math.isfinite(value)]
    best = (min(known) if judged is None or judged.lower else max(known)) if known else None

    def order(row: Row) -> tuple[int, float, float, int]:
        margin = row["margin"] if row["margin"] is not None else -1.0
        behind = _behind(row["evaluation"], best, lower=judged is None or judged.lower)
        return len(row["suspect"]), behind, -margin, -row["step"]

    rows.sort(key=order)
    return [{"place": place, **row} for place, row in enumerate(rows, start=1)]


def _behind(value: float | None, best: float | None, *, lower: bool) -> float:
    """By how many percents, whole ones, an evaluation is behind the best; unknown is behind all."""
    if value is None or best is None or not math.isfinite(value):
        return float("inf")
    distance = value - best if lower else best - value
    return distance // (SAME * abs(best)) if best else distance


def _candidate(material: Material, row: Row, judged: Judged | None) -> Row:
    evaluation = _evaluation(material.evals, row, judged)
    phase, margin = _standing(material, row)
    names = ("checkpoint_id", "step", "attempt", "at", "path", "size_bytes", "took_s", "times_restored")
    return {name: row[name] for name in names} | {
        "judged_by": judged.name if judged and evaluation is not None else None,
        "evaluation": evaluation,
        "phase": phase,
        "margin": margin,
        "suspect": list(_suspicions(material.incidents, row)),
    }


def _evaluation(evals: Iterable[Row], row: Row, judged: Judged | None) -> float | None:
    """The last one that was told of a step no later than its own, in its attempt or one before it."""
    if judged is None:
        return None
    ours = [each for each in evals if (each["split"], each["metric"]) == (judged.split, judged.metric)]
    own = [each for each in ours if each["attempt"] <= row["attempt"] and each["step"] <= row["step"]]
    if not own:
        return None
    return float(max(own, key=lambda each: (each["step"], each["attempt"]))["value"])


def _standing(material: Material, row: Row) -> tuple[str | None, float | None]:
    """Phase and margin when it was saved."""
    before = [each for each in material.course if each["last_at"] <= row["at"]] or list(material.course[:1])
    if not before:
        return None, None
    return before[-1]["phase"], before[-1]["margin"]


def _suspicions(incidents: Iterable[Row], row: Row) -> Iterable[str]:
    if row["rejected"]:
        yield f"rejected: {row['rejected_reason']}"
    if row["lost"]:
        yield ": ".join(filter(None, (row["lost"].replace("_", " "), row["lost_reason"])))
    for incident in incidents:
        last = incident["resolved_at"]
        opened = incident["opened_at"]
        inside = opened is not None and row["at"] <= (last if last is not None else row["at"])
        if inside and row["step"] >= incident["onset_step"] and _same_stretch(incident, row):
            yield f"saved during an incident ({incident['reason']} since step {incident['onset_step']})"


def _same_stretch(incident: Row, row: Row) -> bool:
    """Of the attempt in which it went wrong: what a rollback made of those steps is another matter."""
    return not incident["attempt_id"] or incident["attempt_id"] == row["attempt_id"]
