"""Events and figures in words, one line each: what happened, as a person would say it. Pure.

Used by the command line, by the control room's page and by `pilothouse mcp`, which so tell the same. A body is an event
as JSON has it: NaN and the infinities are texts.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from . import plain_json
from .plain_text import printable

HEAD = frozenset(
    (
        "kind",
        "at",
        "run_id",
        "writer_id",
        "seq",
        "attempt_id",
        "attempt",
        "rank",
        "step",
        "decision_id",
        "basis",
        "policy_hash",
    )
)
"""Fields that every line shows in its columns, or that only programs need."""

LONGEST = 160

STORY = (
    "run_started", "run_ended", "stage_changed", "recipe_changed", "telemetry_gap", "phase_changed",
    "condition_changed", "incident_opened", "incident_resolved", "intervention_proposed", "intervention_approved",
    "intervention_declined", "intervention_issued", "intervention_expired", "intervention_verified",
    "checkpoint_saved", "checkpoint_restored", "checkpoint_rejected", "operator_command", "order_answered",
    "policy_activated", "advice_requested", "advice_given", "advice_judged", "annotated",
)  # fmt: skip
"""The kinds that tell the story of a run. What comes every second, and what comes once for each rank (receipts), is not
among them.
"""

Body = Mapping[str, Any]


def summary(kind: str, body: Body) -> str:
    """What happened, without the columns of the head."""
    tell = _TOLD.get(kind, _fields)
    return " ".join(tell(body).split())


def _phase(body: Body) -> str:
    said = f"{body['was']} → {body['phase']} ({body['reason']}, margin {_figure(body.get('margin'))}"
    evidence = body.get("evidence", {})
    return f"{said}, loss {_figure(evidence['loss'])})" if "loss" in evidence else f"{said})"


def _condition(body: Body) -> str:
    return f"{body['condition']} {body['was']} → {body['status']} {body['reason']}: {body['message']}"


def _assessment(body: Body) -> str:
    score = body.get("stability_score")
    said = f"{body['phase']}, margin {_figure(body.get('margin'))}"
    return said if score is None else f"{said}, stability {_figure(score)}"


def _intervention(body: Body) -> str:
    return f"{short(body['intervention_id'])} {body['rule']}: {action(body['action'])} {body.get('reason', '')}"


def _word(body: Body) -> str:
    """Of somebody, about an intervention."""
    said = ": ".join(filter(None, (body.get("who"), body.get("why") or body.get("reason"))))
    return _cut(f"{short(body['intervention_id'])} {printable(said)}")


def _receipt(body: Body) -> str:
    before, after = body.get("before", {}), body.get("after", {})
    change = " ".join(f"{name} {text_of(before.get(name))} → {text_of(value)}" for name, value in after.items())
    return f"{short(body['intervention_id'])} {body['outcome']} {body.get('reason', '')} {change}"


def _verification(body: Body) -> str:
    return f"{short(body['intervention_id'])} {body['outcome']}: {body['reason']}"


def _order(body: Body) -> str:
    return f"{body['verb']} by {body['who']}: {body['why']}"


def _answer(body: Body) -> str:
    stands = "stands" if body["accepted"] else "refused"
    return f"{short(body['intervention_id'])} {body['verb']} by {body['who']}: {stands}, {body['reason']}"


def _policy(body: Body) -> str:
    return f"{body['name']} {short(body['policy_hash'])} by {body['who']}"


def _start(body: Body) -> str:
    return f"{body['reason']} from step {body['first_step']}, {body['world_size']} ranks {body.get('model', '')}"


def _log_lines(body: Body) -> str:
    lines, dropped = body.get("lines") or [], body.get("dropped") or {}
    last = f": {lines[-1]['level']} {_brief(lines[-1]['text'])}" if lines else ""
    over = f", {sum(dropped.values())} over the bounds" if dropped else ""
    return _cut(f"{len(lines)} lines{over}{last}")


def _pipeline(body: Body) -> str:
    said = (
        body["fact"],
        body.get("subject", ""),
        numbers(body.get("numbers", {})),
        f"by {body['who']}",
        body.get("note", ""),
    )
    return _cut(" ".join(filter(None, said)))


def _profile(body: Body) -> str:
    moments = {name: float(value) for name, value in body.get("numbers", {}).items()}
    looked = f"{body.get('values_sampled', 0)} of {body.get('values_seen', 0)} values"
    return _cut(f"{body['feature']} {body.get('data_schema', '')} {looked} {numbers(moments)}")


def _question(body: Body) -> str:
    about = " ".join(filter(None, (body.get("condition"), body.get("reason"))))
    return f"{short(body['request_id'])} {body.get('advisor', '')} is asked by rule {body.get('rule', '')}: {about}"


def _advice(body: Body) -> str:
    proposed = action(body["action"]) if body.get("action") else "nothing"
    said = body.get("why") or body.get("error") or body.get("answer") or ""
    return _cut(f"{short(body['request_id'])} {body['advisor']} proposes {proposed}: {printable(said)}")


def _judgement(body: Body) -> str:
    came = body["outcome"].replace("_", " ")
    return _cut(f"{short(body['request_id'])} {body['advisor']}: {came}. {printable(body.get('reason', ''))}")


def _fields(body: Body) -> str:
    shown = [(name, value) for name, value in body.items() if name not in HEAD and value not in (None, "", {}, [], 0)]
    return _cut(" ".join(f"{name}={_brief(value)}" for name, value in shown))


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


_TOLD: Mapping[str, Callable[[Body], str]] = {
    "advice_given": _advice,
    "advice_judged": _judgement,
    "advice_requested": _question,
    "condition_changed": _condition,
    "data_profiled": _profile,
    "intervention_approved": _word,
    "intervention_declined": _word,
    "intervention_expired": _word,
    "intervention_issued": _intervention,
    "intervention_proposed": _intervention,
    "intervention_receipt": _receipt,
    "intervention_verified": _verification,
    "log_lines": _log_lines,
    "operator_command": _order,
    "order_answered": _answer,
    "phase_changed": _phase,
    "pipeline_reported": _pipeline,
    "policy_activated": _policy,
    "run_assessed": _assessment,
    "run_started": _start,
}
"""By kind, where its fields in a row would not read well."""


def action(fields: Body) -> str:
    """An action and its arguments, but for those that are as they would be anyway: `scale_lr factor=0.5`."""
    kind = str(fields.get("action", "?"))
    usual = _usual(kind)
    told = [(name, value) for name, value in fields.items() if name != "action" and value is not None]
    return " ".join([kind, *(f"{name}={_brief(value)}" for name, value in told if usual.get(name) != value)])


@lru_cache
def _usual(kind: str) -> Body:
    """What an action does that says no more than its kind."""
    from .actions import ACTIONS

    known = (model.model_fields for model in ACTIONS if model.model_fields["action"].default == kind)
    return {name: field.default for fields in known for name, field in fields.items()}


def _brief(value: Any) -> str:
    """A checkpoint by its step: its path and hash are for programs."""
    return f"step {value['step']}" if isinstance(value, dict) and "step" in value else text_of(value)


def _figure(value: Any) -> str:
    """Non-finite numbers are strings in an event's JSON."""
    return number(None if value is None else float(value))


# ------------------------------------------------------------------------------------------------------------ figures


def text_of(value: Any) -> str:
    """A value for a person."""
    match value:
        case None | float():
            return number(value)
        case tuple() | list():
            return ", ".join(text_of(each) for each in value)
        case Mapping():
            return numbers(value)
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def number(value: float | None, digits: int = 4) -> str:
    """A figure for a person, NaN and the infinities by name; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}" if math.isfinite(value) else plain_json.non_finite(value)


def numbers(values: Mapping[str, Any]) -> str:
    """Named figures on one line."""
    return " ".join(f"{name}={text_of(value)}" for name, value in values.items())


def short(identity: str | None) -> str:
    """The head of an id, enough to tell it from its neighbours."""
    return (identity or "")[:8]
