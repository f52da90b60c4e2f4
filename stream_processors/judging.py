"""Judge one step of a run: features, conditions, verification, incident, phase, then what must follow.

The order of this pipeline is the meaning of the whole system; judges are in `verdicts`, every other arm in
`governance`. Called by `fold` for each ready step and each Tick; writes decisions to the desk.
"""

from functools import lru_cache

from ..events.decisions import SINCE_GOOD, VAL_BEST_STEP, ConditionChanged, Phase, PhaseChanged, RunAssessed
from ..governance import advice, decide, expressions, incidents, interventions, issuing, recovery, verification
from ..governance.conditions import Condition, Verdict
from ..governance.desk import Desk
from ..governance.policy import Policy, Rule, load_policy
from ..governance.situation import Situation
from ..governance.state import STRESSED_MARGIN, least_margin, phase_of, stability_margin
from . import features, verdicts
from .detectors import hang, inputs
from .detectors.sample import StepSample
from .gathering import BACK_ROWS, Turn
from .run_state import MAX_LOST, LostCheckpoint, RunState

SILENT_TICKS = 15
"""Without any record for so many seconds, what is known of a run is stale."""
LOST_TICKS = 600
"""A run that was silent for so many seconds is lost."""
WELL: tuple[Phase, ...] = ("Normal", "Warmup")
NO_POLICY = Policy(name="none", mode="observe", rules=())


def policy_of(state: RunState) -> Policy:
    """The policy that governs the run; one that does nothing until one was activated."""
    return load_policy(state.policy_text) if state.policy_text else NO_POLICY


def step(state: RunState, sample: StepSample, desk: Desk) -> None:
    """Judge one step that every live rank has reported."""
    desk.step, desk.at = sample.step, sample.at
    state.ledger.judged += 1
    hang.stepped(state.hang, state.tick)
    seen = features.observe(state.features, sample, learning=state.conditions["Stable"].status != "False")
    if state.good_step >= 0:
        seen[SINCE_GOOD] = float(sample.step - state.good_step)
    seen |= state.inputs.seen
    state.last_features = seen
    if not (state.settled and _stays_settled(state, seen)):
        _judge(state, seen, desk)
        _conclude(state, desk)
    state.score.judged(desk.step, state.phase)


def _judge(state: RunState, seen: dict[str, float], desk: Desk) -> None:
    onset = features.onset(state.features)
    state.features.news = False
    for name, judge in verdicts.OF_A_STEP:
        condition = state.conditions[name]
        _set(state, condition, judge(condition, seen, onset), desk)


def _stays_settled(state: RunState, seen: dict[str, float]) -> bool:
    """Whether judging and concluding would change nothing but numbers, which are noted.

    No condition has changed since it was found that the run is well, that nothing is open or in flight and that no rule
    holds. So if no judge has anything new to say, only the margin can lead to another phase, and only a rule that reads
    numbers can hold now.
    """
    news, state.features.news = state.features.news, False
    if state.ledger.in_flight or not verdicts.goes_on_well(state.conditions, seen, news=news):
        return False
    margin = least_margin(state.conditions)
    if margin < STRESSED_MARGIN:
        return False
    state.margin = margin
    rules = _rules_on_numbers(state.policy_text)
    return not rules or not decide.any_holds(rules, _facts(state))


@lru_cache(maxsize=256)
def _rules_on_numbers(policy_text: str) -> tuple[Rule, ...]:
    rules = load_policy(policy_text).rules if policy_text else ()
    return tuple(rule for rule in rules if expressions.reads_numbers(rule.when))


def _conclude(state: RunState, desk: Desk) -> None:
    """What every judgement ends with, in this order: effects of the past, incident, phase, then new interventions."""
    if state.ledger.in_flight:
        verification.watch(state.ledger, situation(state, desk), desk)
    if state.incident is not None or incidents.gravest(state.conditions) is not None:
        _follow_incident(state, desk)
    rephase(state, desk)
    if state.ledger.in_flight:
        verification.expire(state.ledger, desk)
    decide.decide(state.ledger, situation(state, desk), desk)
    state.settled = (
        state.phase in WELL
        and state.incident is None
        and not state.ledger.in_flight
        and not any(record.held for record in state.ledger.rules.values())
    )


def _follow_incident(state: RunState, desk: Desk) -> None:
    was_open = state.incident is not None
    healing = any(known.stage == "applied" for known in state.ledger.in_flight)
    state.incident = incidents.advance(state.incident, state.conditions, _onset(state, desk), healing, desk)
    state.score.incidents += not was_open and state.incident is not None
    if was_open and state.incident is None:
        interventions.calm(state.ledger)


def _onset(state: RunState, desk: Desk) -> int:
    if state.incident is not None:
        return state.incident.onset_step
    suspect = features.onset(state.features)
    return suspect if suspect >= 0 else desk.step


def situation(state: RunState, desk: Desk) -> Situation:
    """What rules and people's orders are decided by."""
    return Situation(
        policy=policy_of(state),
        facts=_facts(state),
        incident=state.incident,
        onset=_onset(state, desk),
        candidates=state.candidates,
        steers=state.current.steers if state.current else (),
        tick=state.tick,
        values=state.ledger.values,
        outcome=state.outcome if state.ended else "",
    )


def _facts(state: RunState) -> dict[str, object]:
    return expressions.facts_of(state.last_features, state.conditions, state.phase, state.margin)


def _set(state: RunState, condition: Condition, verdict: Verdict, desk: Desk, *, say_again: bool = False) -> None:
    """Note a verdict; say so when status or reason changed."""
    was, reason = condition.status, condition.reason
    condition.message, condition.evidence = verdict.message, verdict.evidence
    if was == verdict.status and reason == verdict.reason and not say_again:
        return
    condition.status, condition.reason = verdict.status, verdict.reason
    state.settled = False
    if was != verdict.status:
        condition.since_step = desk.step
    desk.decide(
        ConditionChanged,
        condition.type,
        condition=condition.type,
        status=verdict.status,
        was=was,
        reason=verdict.reason,
        message=verdict.message,
        since_step=condition.since_step,
        evidence=verdict.evidence,
    )


def rephase(state: RunState, desk: Desk) -> None:
    """Derive margin and phase from the conditions; say so when the phase changed."""
    state.margin = stability_margin(state.conditions)
    phase, reason = phase_of(
        state.conditions,
        state.margin,
        outcome=state.outcome if state.ended else "",
        recovering=state.ledger.recovering,
        has_baseline=state.conditions["Stable"].status != "Unknown",
    )
    if phase == state.phase:
        return
    was, state.phase, state.settled = state.phase, phase, False
    desk.decide(
        PhaseChanged,
        "phase",
        phase=phase,
        was=was,
        reason=reason,
        margin=state.margin,
        evidence=state.last_features,
    )


def checkpoint_saved(state: RunState, candidate: recovery.Candidate, desk: Desk) -> None:
    """A checkpoint is a candidate when the run was known to be well at that step."""
    healthy = all(state.conditions[name].status == "True" for name in ("Finite", "Stable", "TelemetryFresh"))
    healthy = healthy and state.conditions["Synchronized"].status != "False"  # whose weights would be saved?
    candidate.stable = healthy and state.incident is None and features.onset(state.features) < 0
    best = state.last_features.get(VAL_BEST_STEP)
    recovery.remember(state.candidates, candidate, None if best is None else int(best))
    recoverable(state, desk)


def checkpoint_lost(state: RunState, lost: LostCheckpoint, desk: Desk) -> None:
    """Nobody must be sent back to it."""
    if lost.rotated:
        recovery.forget(state.candidates, lost.checkpoint_id)
    else:
        recovery.pass_over(state.candidates, lost.checkpoint_id, lost.reason, desk)
    recoverable(state, desk)


def recoverable(state: RunState, desk: Desk) -> None:
    """Whether there is a checkpoint to go back to; asked whenever the candidates have changed."""
    good = recovery.last_good(state.candidates, before=None)
    state.good_step = -1 if good is None else good.step
    if good is not None:
        verdict = Verdict("True", "GoodCheckpoint", "there is a checkpoint that was saved while the run was stable")
    elif any(known.rejected for known in state.candidates):
        verdict = Verdict(
            "False", "CheckpointsRejected", "every checkpoint that was saved while stable turned out unusable"
        )
    else:
        verdict = Verdict("Unknown", "NoCheckpointYet", "no checkpoint was saved while the run was stable")
    _set(state, state.conditions["Recoverable"], verdict, desk)


def heard(state: RunState, desk: Desk) -> None:
    """A record of a trainer came: telemetry is fresh, once the run has said that it started."""
    state.heard_tick = state.tick
    attempt = state.current
    in_order = attempt is not None and attempt.started and attempt.rows_back < BACK_ROWS
    if in_order and state.conditions["TelemetryFresh"].status != "True":
        _set(state, state.conditions["TelemetryFresh"], Verdict("True", "Reporting", "ranks are reporting"), desk)
        rephase(state, desk)


def turned(state: RunState, turn: Turn, desk: Desk) -> None:
    """Steps of one attempt only rise. What was judged of them says nothing of a loop that counts them again: nothing
    is known of the run until it comes past them.
    """
    if turn.back:
        message = (
            f"rank 0 goes on with step {turn.step} after step {turn.after}, in the same attempt; nothing is judged "
            "until it comes past it. Steps count up through an attempt: a loop that goes back calls run.begin_attempt, "
            "on all ranks"
        )
        verdict = Verdict("Unknown", "StepsWentBack", message, {"step": float(turn.step), "after": float(turn.after)})
    else:
        verdict = Verdict("True", "Reporting", f"steps rise again, from {turn.step}")
    desk.at = max(desk.at, turn.at)
    _set(state, state.conditions["TelemetryFresh"], verdict, desk)
    rephase(state, desk)


def unannounced(state: RunState, desk: Desk) -> None:
    """Telemetry goes on coming for a run that nobody started; it is kept, and not judged."""
    if any(state.tick - attempt.started_tick == SILENT_TICKS for attempt in state.early):
        _set(
            state,
            state.conditions["TelemetryFresh"],
            Verdict("Unknown", "NotStarted", "telemetry of a run that nobody started"),
            desk,
        )


def lost(state: RunState, count: int, why: str, desk: Desk) -> None:
    """Something was lost for good; the run goes on being judged by what there is. That does not make it fresher.

    A run that loses something with every record says so again when it is twice as much.
    """
    before, state.lost = state.lost, min(state.lost + count, MAX_LOST)
    if before.bit_length() == state.lost.bit_length():
        return
    message = f"{count} steps or records were lost ({why}); {state.lost} so far"
    evidence = {"lost": float(count), "lost_so_far": float(state.lost)}
    status = state.conditions["TelemetryFresh"].status
    _set(
        state,
        state.conditions["TelemetryFresh"],
        Verdict(status, "TelemetryLost", message, evidence),
        desk,
        say_again=True,
    )


def time_passed(state: RunState, desk: Desk) -> None:
    """What only time can tell: silence, hangs, proposals that nobody answers."""
    silent = state.tick - state.heard_tick
    if silent == SILENT_TICKS:
        message = f"nothing was heard for {silent} s; what was known does not hold any more"
        _set(
            state,
            state.conditions["TelemetryFresh"],
            Verdict("False", "Silent", message, {"silent_s": float(silent)}),
            desk,
        )
        rephase(state, desk)
    issuing.time_out(state.ledger, state.tick, policy_of(state), desk)
    if state.ledger.advice.open:
        advice.time_out(state.ledger, situation(state, desk), desk)
    _watch_progress(state, desk)
    _watch_inputs(state, desk)
    state.score.passed(state.phase)
    _assess(state, desk)


def _watch_progress(state: RunState, desk: Desk) -> None:
    condition = state.conditions["Progressing"]
    is_heard = state.conditions["TelemetryFresh"].status == "True"
    wait = hang.passed(state.hang, state.stage, state.tick, heard=is_heard)
    if wait is None:
        return
    condition.x = wait.share
    if wait.share < 1.0:
        return
    first = not condition.is_grave
    _set(state, condition, verdicts.no_step_ended(wait, state.stage), desk)
    if first:
        _conclude(state, desk)


def _watch_inputs(state: RunState, desk: Desk) -> None:
    """Profiles are no facts of a step: what they say is judged with time."""
    drift = inputs.drift(state.inputs)
    if drift is not None:
        condition = state.conditions["InDistribution"]
        _set(state, condition, verdicts.in_distribution(condition, drift), desk)


def _assess(state: RunState, desk: Desk) -> None:
    """Say how the run stands, when there is something new to say."""
    if state.current is None or state.assessed_step == state.ledger.judged:
        return
    assess(state, desk)


def assess(state: RunState, desk: Desk) -> None:
    """How the run stands now."""
    state.assessed_step = state.ledger.judged
    desk.decide(
        RunAssessed,
        "assessment",
        phase=state.phase,
        margin=state.margin,
        stability_score=state.score.stability,
        features=state.last_features,
    )
