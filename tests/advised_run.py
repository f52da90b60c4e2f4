"""A governed run whose policy asks advisors, and answers to what they are asked."""

from typing import Any

from pilothouse.events.actions import ACTION
from pilothouse.events.commands import AdviceGiven
from pilothouse.events.decisions import AdviceJudged, AdviceRequested
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import START, quiet_loss

POLICY = """
name: asking
mode: enforce
bounds: {lr_multiplier: {min: 0.1}}
rules:
- name: unstable
  when: conditions.Stable == 'False'
  for: 2
  runbook: Suspect the data first.
  actions: [{action: notify, message: nobody knew better}]
  advise:
    advisors: [memory, llm]
    choose_from:
      - {action: scale_lr, factor: {min: 0.25, max: 0.9}}
      - {action: skip_batches, count: {min: 10, max: 200, step: 10}}
    within_seconds: 10
    budget: {calls: 3, cost_usd: 0.5}
  cooldown_steps: 5
  limit: {count: 8}
  verify: {window_steps: 10}
"""
BAD_FROM = 100


def policy(**changes: str) -> str:
    """The policy with some words changed: `mode`, `advisors`, `when`, `more` lines of the rule."""
    text = POLICY.replace("mode: enforce", f"mode: {changes.get('mode', 'enforce')}")
    text = text.replace("[memory, llm]", changes.get("advisors", "[memory, llm]"))
    text = text.replace("conditions.Stable == 'False'", changes.get("when", "conditions.Stable == 'False'"))
    return text + changes.get("more", "")


def asked_run(
    text: str = POLICY, bad: int = 40, steps: int = 104, announced: dict[str, Any] | None = None, **fields: Any
) -> GovernedRun:
    """Under this policy, with so many bad batches from `BAD_FROM` on, trained until its rule has asked."""

    def loss(position: int, step: int, rank: int) -> float:
        return quiet_loss(step, rank) + (3.0 if BAD_FROM <= position < BAD_FROM + bad else 0.0)

    chosen: dict[str, Any] = {"world": 1, "loss": loss} | fields
    return GovernedRun(**chosen).begin(text, **(announced or {})).train(steps)


def questions(run: GovernedRun) -> list[AdviceRequested]:
    found: list[AdviceRequested] = run.of(AdviceRequested)
    return found


def outcomes(run: GovernedRun) -> list[str]:
    """What became of each question, with whom."""
    return [f"{judged.advisor} {judged.outcome}" for judged in run.of(AdviceJudged)]


def answer(request: AdviceRequested, action: dict[str, Any] | None = None, **fields: Any) -> AdviceGiven:
    """An advisor's answer, as its worker would tell it."""
    given: dict[str, Any] = {
        "at": START,
        "run_id": request.run_id,
        "writer_id": f"advisor-{request.request_id}",
        "seq": 1,
        "request_id": request.request_id,
        "advisor": request.advisor,
        "action": None if action is None else ACTION.validate_python(action),
    }
    return AdviceGiven(**given | fields)


HALVE = {"action": "scale_lr", "factor": 0.5}
