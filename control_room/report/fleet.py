"""The review of all runs of a time, as data: what failed, what it cost, what helped, what to change. Pure.

Runs belong to the time in which they were last heard of; beside each figure stands that of the time before, of the same
length. Hours and waste are the archive's (view `run_overview`), estimated by the run's mean pace. Called by `pilothouse
report --fleet`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]
FAILED = ("crashed", "out_of_memory", "diverged", "lost")
"""Outcomes that are failures. What a person stopped or a scheduler took away is none of the run's own."""
UNWELL = ("Unstable", "Diverged", "Stalled")
DEGRADED_SCORE = 80.0
WASTED_SHARE = 0.1
IDLE_GPUS = 0.5
OFTEN = 2
MOST = 10


def fleet_review(
    runs: Sequence[Row],
    before: Sequence[Row],
    incidents: Sequence[Row],
    span: tuple[int, int],
    levels: Sequence[Row] = (),
) -> dict[str, Any]:
    """`before` are the runs of the time before, `incidents` those that were opened in this one (`span`: from and to),
    `levels` how the service levels stand now."""
    since, until = span
    known = {row["run_id"] for row in runs}
    opened = [row for row in incidents if row["run_id"] in known]
    signatures = _signatures(opened)
    return {
        "since": since,
        "until": until,
        "figures": {name: {"now": now, "before": then} for name, now, then in _figures(runs, before)},
        "outcomes": dict(Counter(row["outcome"] or "running" for row in runs).most_common()),
        "failed": [_brief(row, opened) for row in runs if row["outcome"] in FAILED],
        "degraded": [_brief(row, opened) for row in runs if row["outcome"] not in FAILED and is_degraded(row)],
        "signatures": signatures,
        "costs": {name: _costs(runs, name) for name in ("team", "model", "cluster")},
        "wasteful": [_brief(row, opened) for row in _wasteful(runs)[:MOST]],
        "service_levels": [dict(row) for row in levels],
        "to_change": [*_to_change(runs, opened, signatures), *_of_levels(levels)],
        "runs": [dict(row) for row in runs],
    }


def is_degraded(row: Row) -> bool:
    """Whether a run that did not fail needs a look: it is unwell now, was unstable, or wasted much."""
    score, wasted = row["stability_score"], row["wasted_share"]
    unwell = row["phase"] in UNWELL or (row["open_incidents"] > 0 and not row["outcome"])
    return unwell or (score is not None and score < DEGRADED_SCORE) or (wasted or 0.0) > WASTED_SHARE


def _figures(runs: Sequence[Row], before: Sequence[Row]) -> Iterator[tuple[str, float | None, float | None]]:
    """Each figure of this time and of the one before; None where nothing was told for it."""
    for name, of in _FIGURES.items():
        yield name, of(runs), of(before)


def _success(runs: Sequence[Row]) -> float | None:
    ended = [row for row in runs if row["outcome"]]
    return sum(row["outcome"] not in FAILED for row in ended) / len(ended) if ended else None


def _sum(name: str, runs: Sequence[Row]) -> float | None:
    known = [row[name] for row in runs if row[name] is not None]
    return sum(known) if known else None


def _mean(name: str, runs: Sequence[Row]) -> float | None:
    known = [row[name] for row in runs if row[name] is not None]
    return fmean(known) if known else None


def _wasted(runs: Sequence[Row]) -> float | None:
    hours = _sum("rank_hours", runs)
    return (_sum("wasted_rank_hours", runs) or 0.0) / hours if hours else None


_FIGURES: Mapping[str, Callable[[Sequence[Row]], float | None]] = {
    "runs": lambda runs: float(len(runs)),
    "successful of those that ended": _success,
    "incidents": lambda runs: _sum("incidents", runs),
    "interventions": lambda runs: _sum("interventions_issued", runs),
    "mean time to detect": lambda runs: _mean("mttd_s", runs),
    "mean time to recover": lambda runs: _mean("mttr_s", runs),
    "stability score": lambda runs: _mean("stability_score", runs),
    "rank-hours": lambda runs: _sum("rank_hours", runs),
    "GPU-hours": lambda runs: _sum("gpu_hours", runs),
    "wasted share": _wasted,
    "cost": lambda runs: _sum("cost", runs),
    "wasted cost": lambda runs: _sum("wasted_cost", runs),
    "energy, kWh": lambda runs: _sum("energy_kwh", runs),
    "GPU utilisation": lambda runs: _mean("gpu_util", runs),
}


def _brief(row: Row, incidents: Sequence[Row]) -> dict[str, Any]:
    names = ("run_id", "team", "model", "cluster", "outcome", "phase", "stability_score", "last_step", "rank_hours")
    more = ("wasted_share", "wasted_rank_hours", "cost", "open_incidents", "last_at")
    own = [one["signature"] for one in incidents if one["run_id"] == row["run_id"]]
    return {name: row[name] for name in (*names, *more)} | {"signatures": dict(Counter(own).most_common())}


def _wasteful(runs: Sequence[Row]) -> list[Row]:
    found = [row for row in runs if (row["wasted_rank_hours"] or 0.0) > 0]
    return sorted(found, key=lambda row: -row["wasted_rank_hours"])


def _signatures(incidents: Sequence[Row]) -> list[dict[str, Any]]:
    """By signature: how often, how soon seen and over, what was tried and what of it helped."""
    found = []
    for signature, count in Counter(row["signature"] for row in incidents).most_common():
        own = [row for row in incidents if row["signature"] == signature]
        found.append(
            {
                "signature": signature,
                "incidents": count,
                "runs": len({row["run_id"] for row in own}),
                "recovered": sum(row["outcome"] == "recovered" for row in own),
                "mttd_s": _mean("detection_s", own),
                "mttr_s": _mean("recovery_s", own),
                "steps_lost": _sum("steps_lost", own),
                "tried": tried_in(own),
                "unanswered": sum(not row["tried"] for row in own),
            }
        )
    return found


def tried_in(incidents: Sequence[Row]) -> list[dict[str, Any]]:
    """By action: proposed, applied, and verified to have helped."""
    counts: dict[str, Counter[str]] = {}
    for row in incidents:
        for _, _, action, state, verification in row["tried"]:
            count = counts.setdefault(action, Counter())
            count["proposed"] += 1
            count["applied"] += state in ("applied", "verified")
            count["helped"] += verification == "recovered"
            count["in_vain"] += verification in ("ineffective", "reverted")
    names = ("proposed", "applied", "helped", "in_vain")
    return [{"action": action, **{name: count[name] for name in names}} for action, count in counts.items()]


def _costs(runs: Sequence[Row], by: str) -> list[dict[str, Any]]:
    """What each team, model or cluster took, the most first; those that were not named are one."""
    groups: dict[str, list[Row]] = {}
    for row in runs:
        groups.setdefault(row[by] or "(not told)", []).append(row)
    found: list[dict[str, Any]] = [
        {
            by: name,
            "runs": len(own),
            "failed": sum(row["outcome"] in FAILED for row in own),
            "rank_hours": _sum("rank_hours", own) or 0.0,
            "wasted_share": _wasted(own),
            "cost": _sum("cost", own),
            "stability_score": _mean("stability_score", own),
        }
        for name, own in groups.items()
    ]
    return sorted(found, key=lambda row: -row["rank_hours"])[:MOST]


def _to_change(runs: Sequence[Row], incidents: Sequence[Row], signatures: Sequence[Row]) -> Iterator[str]:
    """What the record itself suggests, each with its figures."""
    for row in signatures:
        yield from _of_signature(row)
    for outcome, what in (("out_of_memory", "ran out of memory"), ("lost", "fell silent and were lost")):
        own = [row["run_id"] for row in runs if row["outcome"] == outcome]
        if own:
            yield f"{_runs(own)} {what}: see the errors in their reports."
    bare = sorted({row["run_id"] for row in incidents} & {row["run_id"] for row in runs if not row["checkpoints"]})
    if bare:
        yield f"{_runs(bare)} had incidents and no checkpoint: nothing could be rolled back to."
    wasteful = [row for row in _wasteful(runs) if row["wasted_share"] > WASTED_SHARE]
    if wasteful:
        hours = sum(row["wasted_rank_hours"] for row in wasteful)
        yield f"{_runs([row['run_id'] for row in wasteful])} wasted {hours:.3g} rank-hours, over a tenth of theirs."
    idle = [row["run_id"] for row in runs if row["gpu_util"] is not None and row["gpu_util"] < IDLE_GPUS]
    if idle:
        yield f"{_runs(idle)} used less than half of their GPUs: look where the time of a step goes."


def _of_levels(levels: Sequence[Row]) -> Iterator[str]:
    for row in levels:
        burn = row["burn_week"]
        if row["status"] == "missed":
            fast = f" and spends its budget {burn:.3g}x as fast as it may" if burn is not None and burn > 1 else ""
            yield f"Service level {row['id']} ({row['name']}) is missed{fast}: the target is {row['target']}."


def _of_signature(row: Row) -> Iterator[str]:
    name, count = row["signature"], row["incidents"]
    for one in row["tried"]:
        if one["helped"] >= OFTEN and not one["in_vain"]:
            yield f"{name}: {one['action']} helped {one['helped']} of {one['applied']} times: let it act by itself."
        elif one["in_vain"] > one["helped"]:
            yield f"{name}: {one['action']} was in vain {one['in_vain']} of {one['applied']} times: try another first."
        elif not one["applied"]:
            yield f"{name}: {one['action']} was proposed {one['proposed']} times and never applied."
    if row["unanswered"]:
        yield f"{name}: {row['unanswered']} of {count} incidents had no rule that answered."


def _runs(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
