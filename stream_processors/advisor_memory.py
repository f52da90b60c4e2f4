"""The archive's own record as an advisor: what helped before, in incidents of the same signature.

A signature is the condition that fails and its reason. Of every action that may be chosen and was verified in such an
incident it is known how often it helped; the one whose recovery rate is surely highest is proposed, or nothing, where
there is no evidence. `records_of` and `best` are pure; the rows come from `storage.tried`.
"""

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..events.action_surface import ActionChoice, as_fields, refusal
from ..events.actions import ACTION, Action
from ..events.decisions import AdviceRequested
from ..storage.tried import Signature
from .advisor_opinion import Opinion

Z = 1.96
HELPS = 0.5
"""What helped in less than this share of the incidents is not proposed."""
NAMED_RUNS = 16

Rows = list[dict[str, Any]]


class Record(NamedTuple):
    """What is known of one action: how often it was verified, how often it helped, in how many steps (median), in
    which runs (the latest first).
    """

    action: Action
    tries: int
    recovered: int
    median_steps: float | None
    runs: tuple[str, ...]

    @property
    def rate(self) -> float:
        return self.recovered / self.tries

    @property
    def sure(self) -> float:
        """The least recovery rate that is likely: Wilson's score interval (1927), its lower end at 95%."""
        n, p = self.tries, self.rate
        spread = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return (p + Z * Z / (2 * n) - spread) / (1 + Z * Z / n)

    @property
    def plain(self) -> dict[str, Any]:
        """For a reader of JSON."""
        told = {"action": as_fields(self.action), "tries": self.tries, "recovered": self.recovered}
        return told | {"median_steps_to_recover": self.median_steps, "runs": len(self.runs)}

    def __str__(self) -> str:
        steps = "" if self.median_steps is None else f", in {self.median_steps:g} steps (median)"
        return f"{_shown(self.action)} helped in {self.recovered} of {self.tries} incidents{steps}"


def signature_of(request: AdviceRequested) -> Signature:
    """The incident that the question is about."""
    return Signature(request.run_id, request.incident_id, request.condition, request.reason)


def records_of(rows: Iterable[dict[str, Any]]) -> list[Record]:
    """One record for each action, values included, the surest first. What is no action of ours is passed over."""
    by_action: dict[str, list[tuple[Action, dict[str, Any]]]] = {}
    for row in rows:
        try:
            action = ACTION.validate_json(row["action_body"])
        except ValidationError:
            continue
        by_action.setdefault(json.dumps(as_fields(action), sort_keys=True), []).append((action, row))
    return sorted(map(_record, by_action.values()), key=_by_worth)


def best(records: Sequence[Record], choices: Sequence[ActionChoice]) -> Record | None:
    """The surest of those that may be chosen and helped often enough."""
    helping = [known for known in records if known.recovered and known.rate >= HELPS]
    return next((known for known in helping if refusal(choices, known.action) is None), None)


def _record(tried: list[tuple[Action, dict[str, Any]]]) -> Record:
    helped = [(action, row) for action, row in tried if row["outcome"] == "recovered"]
    steps = [known for action, row in helped if (known := _steps_to_recover(action, row)) is not None]
    return Record(
        action=ACTION.validate_python(as_fields(tried[0][0])),
        tries=len(tried),
        recovered=len(helped),
        median_steps=float(median(steps)) if steps else None,
        runs=tuple(dict.fromkeys(str(row["run_id"]) for _, row in tried)),
    )


def _steps_to_recover(action: Action, row: dict[str, Any]) -> int | None:
    """From where it was applied to where the incident was over; behind a rollback steps count from the checkpoint."""
    resolved, applied = row["resolved_step"], row["applied_steps"]
    if row["incident_outcome"] != "recovered" or resolved is None or not applied:
        return None
    checkpoint = action.checkpoint if action.action == "rollback" else None
    steps = int(resolved) - (int(max(applied)) if checkpoint is None else checkpoint.step)
    return steps if steps >= 0 else None


def _by_worth(record: Record) -> tuple[float, float, str]:
    steps = math.inf if record.median_steps is None else record.median_steps
    return -record.sure, steps, json.dumps(as_fields(record.action), sort_keys=True)


class MemoryAdvisor:
    """Answers from the archive. `tried` asks it, and may block and raise."""

    def __init__(self, tried: Callable[[Signature], Rows]) -> None:
        self._tried = tried

    async def __call__(self, request: AdviceRequested) -> Opinion:
        signature = signature_of(request)
        about = f"{request.condition} {request.reason}".strip()
        if not about:
            return Opinion(why="no evidence: nothing is wrong that has a name, so that no incident is like this one")
        return opinion_of(records_of(await asyncio.to_thread(self._tried, signature)), about, request.choices)


def opinion_of(records: Sequence[Record], about: str, choices: Sequence[ActionChoice]) -> Opinion:
    """What these records advise for an incident of this signature."""
    answer = json.dumps([known.plain for known in records])
    found = best(records, choices)
    if found is not None:
        return Opinion(
            action=found.action,
            why=f"{about}: {found}; seen in {_listed(found.runs)}",
            input=about,
            answer=answer,
            evidence=_numbers(found),
            runs=found.runs[:NAMED_RUNS],
        )
    return Opinion(why=f"no evidence: {_why_none(records, about, choices)}", input=about, answer=answer)


def _why_none(records: Sequence[Record], about: str, choices: Sequence[ActionChoice]) -> str:
    if not records:
        return f"no intervention was ever verified in an incident of {about}"
    allowed = [known for known in records if refusal(choices, known.action) is None]
    if not allowed:
        return f"in incidents of {about} nothing was tried that may be chosen here; {records[0]}"
    return f"in incidents of {about} nothing that may be chosen here helped in half of them; {allowed[0]}"


def _numbers(record: Record) -> dict[str, float]:
    told = {"tries": record.tries, "recovered": record.recovered, "runs": len(record.runs)}
    known = {} if record.median_steps is None else {"median_steps_to_recover": record.median_steps}
    return {name: float(value) for name, value in told.items()} | known | {"recovery_rate": record.rate}


def _shown(action: Action) -> str:
    numbers = {name: value for name, value in as_fields(action).items() if isinstance(value, int | float)}
    return " ".join([action.action, *(f"{name}={value:g}" for name, value in numbers.items())])


def _listed(runs: Sequence[str]) -> str:
    return ", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
