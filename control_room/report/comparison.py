"""Several runs beside each other, as data: what `pilothouse compare --json` prints and `compare_page` lays out. Pure.

Curves are aligned by step, by tokens, or by the time since each run's first step; what a rollback undid is left out.
Runs whose configuration differs in nothing but seeds are one group; groups of two or more are tested against each other
(`significance`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from ...events.union import AnyDecision
from .candidates import judged_by
from .charts import split_undone
from .figures import flat
from .material import Material, Row
from .overview import overview, starts_of
from .parting import Partings, partings, words
from .regimes import contrasts, stays_of
from .significance import permutation_test

Axis = Literal["step", "tokens", "time"]
ALIGNED = ("loss", "grad_norm", "lr", "throughput")
AT_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
LOCAL = ("command", "host", "seeds", "launcher", "platform", "cpus", "git.branch", "git.dirty")
"""What a run finds by itself and what is another on every machine and at every start."""
MOST_CONTRASTS = 10


@dataclass(frozen=True)
class Side:
    """One run: what was read, what was worked out of it, what was decided in it."""

    material: Material
    whole: Row
    decisions: Sequence[AnyDecision]

    @property
    def name(self) -> str:
        return self.material.run_id


def side_of(material: Material, decisions: Sequence[AnyDecision]) -> Side:
    """A run to be compared, with its decisions in the order in which they were taken."""
    return Side(material, overview(material), decisions)


def comparison(sides: Sequence[Side], by: Axis, groups: Sequence[Sequence[str]] = ()) -> Row:
    """`groups` are names of runs that belong together; where none are given, those that differ in seeds only."""
    named = [list(group) for group in groups] or seed_groups(sides)
    return {
        "runs": [side.name for side in sides],
        "by": by,
        "differences": differences(sides),
        "outcomes": [_outcome(side) for side in sides],
        "curves": {name: found for name in ALIGNED if (found := _aligned(sides, name, by))},
        "evaluations": _evaluations(sides),
        "regimes": {side.name: side.whole["stability"]["regimes"] for side in sides},
        "contrasts": contrasts([(side.name, stays_of(side.material.regimes)) for side in sides])[:MOST_CONTRASTS],
        "groups": [{"name": group_name(sides, group), "runs": group} for group in named],
        "tests": list(_tests(sides, named)),
        "partings": [_parting(ours, theirs) for ours, theirs in combinations(sides, 2) if ours is sides[0]],
    }


# ------------------------------------------------------------------------------------------------------- configuration


def differences(sides: Sequence[Side]) -> list[Row]:
    """What the runs were told or found that is not the same for all, by name; None where a run has no such thing."""
    told = [_described(side) for side in sides]
    names = dict.fromkeys(name for one in told for name in one)
    rows = [{"name": name, "values": [one.get(name) for one in told]} for name in names]
    return [row for row in rows if len({repr(value) for value in row["values"]}) > 1]


def _described(side: Side) -> Row:
    configuration, run = side.whole["configuration"], side.whole["run"]
    environment = {
        f"environment.{name}": value
        for name, value in configuration["environment"].items()
        if not name.startswith(LOCAL)
    }
    policies = [row["policy_hash"] for row in configuration["policies"]]
    heads = ("model", "model_family", "dataset", "dataset_version", "cluster", "team", "code_version", "world_size")
    return {
        **{name: value for name, value in configuration["config"].items() if side.name not in str(value)},
        **{f"run.{name}": run[name] for name in heads},
        "run.policy": str(policies[-1])[:8] if policies else None,
        **environment,
    }


def seed_groups(sides: Sequence[Side]) -> list[list[str]]:
    """Runs whose configuration and code are the same but for their seeds."""
    found: dict[str, list[str]] = {}
    for side in sides:
        config = sorted((name, value) for name, value in _own_told(side) if not is_seed(name))
        key = repr((config, side.whole["run"]["code_version"]))
        found.setdefault(key, []).append(side.name)
    return list(found.values())


def _own_told(side: Side) -> Iterator[tuple[str, str]]:
    """The configuration as texts, with the run's own id (in paths, too) left open."""
    for name, value in side.whole["configuration"]["config"].items():
        yield name, repr(value).replace(side.name, "RUN")


def is_seed(name: str) -> bool:
    """Whether a name of a configuration is that of a seed."""
    return "seed" in name.rpartition(".")[2].lower()


def group_name(sides: Sequence[Side], group: Sequence[str]) -> str:
    """What the runs of a group share and others do not: the names of what they were told."""
    told = [flat_config(side) for side in sides]
    own = [config for side, config in zip(sides, told, strict=True) if side.name in group]
    names = [name for name in own[0] if not is_seed(name) and len({repr(one.get(name)) for one in told}) > 1]
    shared = [name for name in names if len({repr(one.get(name)) for one in own}) == 1]
    return ", ".join(f"{name}={own[0][name]}" for name in shared[:4]) or ", ".join(group)


def flat_config(side: Side) -> Row:
    """A run's configuration by dotted names."""
    last = starts_of(side.material).get(side.material.run["attempt_id"], {})
    return flat(last.get("config") or {})


# -------------------------------------------------------------------------------------------------------------- results


def _outcome(side: Side) -> Row:
    run, effort, incidents = side.whole["run"], side.whole["effort"], side.whole["incidents"]
    judged = side.whole["evaluations"]["judged_by"]
    return {
        "run_id": side.name,
        "outcome": run["outcome"] or "running",
        "last_step": run["last_step"],
        "final_loss": _final_loss(side),
        "judged_by": f"{judged['split']} {judged['metric']}" if judged else None,
        "final_evaluation": _evaluation(side, last=True),
        "best_evaluation": _evaluation(side, last=False),
        "stability_score": run["stability_score"],
        "share_well": sum(
            row["share"] for row in side.whole["stability"]["time_in_phase"] if row["phase"] in ("Normal", "Warmup")
        ),
        "incidents": run["incidents"],
        "interventions": run["interventions"],
        "mttd_s": _mean([row["seconds_to_detect"] for row in incidents]),
        "mttr_s": _mean([row["seconds_to_recover"] for row in incidents]),
        "steps_undone": effort["steps_undone"],
        "wall_s": effort["wall_s"],
        "device_hours": effort["device_hours"],
        "wasted_share": effort["wasted_share"],
        "cost": effort["cost"],
        "energy_kwh": effort["energy_kwh"],
        "tokens_per_s": effort["tokens_per_s"],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _final_loss(side: Side) -> float | None:
    kept = _kept(side, "loss")
    return kept[-1]["mean"] if kept else None


def _evaluation(side: Side, *, last: bool) -> float | None:
    judged = judged_by(side.material.evals)
    if judged is None:
        return None
    own = [row for row in side.material.evals if (row["split"], row["metric"]) == (judged.split, judged.metric)]
    if last:
        return float(own[-1]["value"])
    known = [float(row["value"]) for row in own if row["value"] == row["value"]]  # not NaN
    return (min(known) if judged.lower else max(known)) if known else None


# --------------------------------------------------------------------------------------------------------------- curves


def _kept(side: Side, name: str) -> list[Mapping[str, Any]]:
    metric = side.material.names.get(name, "")
    rows = [row for row in side.material.curves if row["metric"] == metric]
    return split_undone(rows, side.whole["attempts"])[0]


def _aligned(sides: Sequence[Side], name: str, by: Axis) -> Row | None:
    """The curve of each run, and its values at shares of the stretch that all of them have."""
    curves = {side.name: _points(side, name, by) for side in sides}
    known = {run: points for run, points in curves.items() if points}
    if not known:
        return None
    common = min(points[-1][0] for points in known.values())
    places = [round(share * common) if common > len(AT_SHARES) else share * common for share in AT_SHARES]
    return {
        "points": curves,
        "at": [{"x": place, "values": [_value_at(curves[side.name], place) for side in sides]} for place in places],
    }


def _points(side: Side, name: str, by: Axis) -> list[tuple[float, float | None]]:
    rows = _kept(side, name)
    if by == "step" or not rows:
        return [(float(row["from_step"]), row["mean"]) for row in rows]
    if by == "time":
        first = min(row["first_at"] for row in side.material.curves)
        return [((row["first_at"] - first) / 1e6, row["mean"]) for row in rows]
    tokens = _tokens(side)
    return [(seen, row["mean"]) for row in rows if (seen := _at_most(tokens, row["from_step"])) is not None]


def _tokens(side: Side) -> list[tuple[float, float]]:
    """(step, tokens until then): told so, or added up."""
    seen = _kept(side, "tokens_seen")
    if seen:
        return [(float(row["from_step"]), float(row["greatest"] or 0.0)) for row in seen]
    total, found = 0.0, []
    for row in _kept(side, "tokens"):
        total += (row["mean"] or 0.0) * (row["values"] - row["non_finite"])
        found.append((float(row["from_step"]), total))
    return found


def _at_most(points: Sequence[tuple[float, float]], x: float) -> float | None:
    before = [value for place, value in points if place <= x]
    return before[-1] if before else None


def _value_at(points: Sequence[tuple[float, float | None]], x: float) -> float | None:
    before = [value for place, value in points if place <= x * (1 + 1e-9)]
    return before[-1] if before else None


def _evaluations(sides: Sequence[Side]) -> Row:
    """By split and metric, the values of each run over steps."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for side in sides:
        kept = split_undone(side.whole["evaluations"]["values"], side.whole["attempts"])[0]
        for row in kept:
            name = f"{row['split']} {row['metric']}"
            found.setdefault(name, {}).setdefault(side.name, []).append((float(row["step"]), row["value"]))
    return found


# ------------------------------------------------------------------------------------------------------------ the tests

TESTED = {
    "final_evaluation": "final evaluation",
    "best_evaluation": "best evaluation",
    "final_loss": "final training loss",
    "stability_score": "stability score",
    "share_well": "share of the time well",
    "wasted_share": "share wasted",
    "incidents": "incidents",
    "wall_s": "seconds",
}


def _tests(sides: Sequence[Side], groups: Sequence[Sequence[str]]) -> Iterator[Row]:
    outcomes = {side.name: _outcome(side) for side in sides}
    for ours, theirs in combinations([group for group in groups if len(group) > 1], 2):
        for key, what in TESTED.items():
            values = [[outcomes[run][key] for run in group] for group in (ours, theirs)]
            if any(value is None for group in values for value in group):
                continue
            found = permutation_test(*([float(value) for value in group] for group in values))
            if found is not None:
                yield {
                    "what": what,
                    "groups": [group_name(sides, ours), group_name(sides, theirs)],
                    "runs": [len(ours), len(theirs)],
                    "means": [found.mean, found.other_mean],
                    "p": found.p,
                    "least_p": found.least_p,
                    "exact": found.exact,
                    "verdict": found.verdict,
                }


# ----------------------------------------------------------------------------------------------------------- decisions


def _parting(ours: Side, theirs: Side) -> Row:
    found: Partings = partings(ours.decisions, theirs.decisions)
    told: Row = {"runs": [ours.name, theirs.name], "decisions": list(found.decisions)}
    for name, parting in (("first", found.first), ("in_substance", found.in_substance)):
        told[name] = (
            {
                "number": parting.number,
                "steps": [one.step if one is not None else None for one in (parting.ours, parting.theirs)],
                "kinds": [one.kind if one is not None else None for one in (parting.ours, parting.theirs)],
                "words": [words(parting.ours, parting.theirs), words(parting.theirs, parting.ours)],
            }
            if parting is not None
            else None
        )
    return told
