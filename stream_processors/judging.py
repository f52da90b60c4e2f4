"""Judge one step of a run: features, conditions, verification, incident, phase, then what must follow.

The order of this pipeline is the meaning of the whole system; every arm is in `governance`. Called by `fold` for each
ready step and each Tick; writes decisions to the desk.
"""

from ..events.decisions import ConditionChanged, ConditionType, PhaseChanged, RunAssessed
from ..governance import decide, expressions, incidents, recovery, verification
from ..governance.conditions import Condition, Verdict
from ..governance.desk import Desk
from ..governance.policy import Policy, load_policy
from ..governance.state import phase_of, stability_margin
from . import features, verdicts
from .detectors import hang, inputs
from .detectors.sample import StepSample
from .gathering import BACK_ROWS, Turn
from .run_state import MAX_LOST, RunState

SILENT_TICKS = 15
"""Without any record for so many seconds, what is known of a run is stale."""
LOST_TICKS = 600
"""A run that was silent for so many seconds is lost."""
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
    seen |= _checkpoint_age(state, sample.step)
    seen |= state.inputs.seen
    state.last_features = seen
    onset = features.onset(state.features)
    for name, judge in verdicts.OF_A_STEP:
        _set(state, name, judge(state.conditions[name], seen, onset), desk)
    _conclude(state, desk)
    state.score.judged(desk.step, state.phase)


def _conclude(state: RunState, desk: Desk) -> None:
    """What every judgement ends with, in this order: effects of the past, incident, phase, then new interventions."""
    policy = policy_of(state)
    verification.watch(state.ledger, policy, _facts(state), desk)
    healing = any(known.stage == "applied" for known in state.ledger.in_flight)
    had_incident = state.incident is not None
    state.incident = incidents.advance(state.incident, state.conditions, _onset(state, desk), healing, desk)
    state.score.incidents += not had_incident and state.incident is not None
    if had_incident and state.incident is None:
        for record in state.ledger.rules.values():
            record.rung = 0
    rephase(state, desk)
    decide.expire(state.ledger, desk)
    decide.decide(state.ledger, situation(state, desk), desk)


def _onset(state: RunState, desk: Desk) -> int:
    if state.incident is not None:
        return state.incident.onset_step
    suspect = features.onset(state.features)
    return suspect if suspect >= 0 else desk.step


def situation(state: RunState, desk: Desk) -> decide.Situation:
    """What rules and people's orders are decided by."""
    return decide.Situation(
        policy=policy_of(state),
        facts=_facts(state),
        incident=state.incident,
        onset=_onset(state, desk),
        candidates=state.candidates,
        steers=state.current.steers if state.current else (),
        tick=state.tick,
    )


def _facts(state: RunState) -> dict[str, object]:
    status = {name: condition.status for name, condition in state.conditions.items()}
    reasons = {name: condition.reason for name, condition in state.conditions.items()}
    return expressions.facts_of(state.last_features, status, state.phase, state.margin, reasons)


def _checkpoint_age(state: RunState, step_: int) -> dict[str, float]:
    good = recovery.last_good(state.candidates, before=None)
    return {} if good is None else {"steps_since_good_checkpoint": float(step_ - good.step)}


def _set(state: RunState, name: ConditionType, verdict: Verdict, desk: Desk, *, say_again: bool = False) -> None:
    """Note a verdict; say so when status or reason changed."""
    condition: Condition = state.conditions[name]
    was = condition.status
    changed = say_again or (was, condition.reason) != (verdict.status, verdict.reason)
    condition.status, condition.reason = verdict.status, verdict.reason
    condition.message, condition.evidence = verdict.message, verdict.evidence
    if not changed:
        return
    if was != verdict.status:
        condition.since_step = desk.step
    desk.decide(
        ConditionChanged,
        name,
        condition=name,
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
        outcome=state.outcome if state.ended else "",
        recovering=state.ledger.recovering,
        has_baseline=state.conditions["Stable"].status != "Unknown",
    )
    if phase == state.phase:
        return
    was, state.phase = state.phase, phase
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
    candidate.stable = healthy and state.incident is None and features.onset(state.features) < 0
    recovery.remember(state.candidates, candidate)
    recoverable(state, desk)


def recoverable(state: RunState, desk: Desk) -> None:
    """Whether there is a checkpoint to go back to."""
    good = recovery.last_good(state.candidates, before=None)
    if good is not None:
        verdict = Verdict("True", "GoodCheckpoint", "there is a checkpoint that was saved while the run was stable")
    elif any(known.rejected for known in state.candidates):
        verdict = Verdict(
            "False", "CheckpointsRejected", "every checkpoint that was saved while stable turned out unusable"
        )
    else:
        verdict = Verdict("Unknown", "NoCheckpointYet", "no checkpoint was saved while the run was stable")
    _set(state, "Recoverable", verdict, desk)


def heard(state: RunState, desk: Desk) -> None:
    """A record of a trainer came: telemetry is fresh, once the run has said that it started."""
    state.heard_tick = state.tick
    attempt = state.current
    in_order = attempt is not None and attempt.started and attempt.rows_back < BACK_ROWS
    if in_order and state.conditions["TelemetryFresh"].status != "True":
        _set(state, "TelemetryFresh", Verdict("True", "Reporting", "ranks are reporting"), desk)
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
    _set(state, "TelemetryFresh", verdict, desk)
    rephase(state, desk)


def unannounced(state: RunState, desk: Desk) -> None:
    """Telemetry goes on coming for a run that nobody started; it is kept, and not judged."""
    if any(state.tick - attempt.started_tick == SILENT_TICKS for attempt in state.early):
        _set(state, "TelemetryFresh", Verdict("Unknown", "NotStarted", "telemetry of a run that nobody started"), desk)


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
    _set(state, "TelemetryFresh", Verdict(status, "TelemetryLost", message, evidence), desk, say_again=True)


def time_passed(state: RunState, desk: Desk) -> None:
    """What only time can tell: silence, hangs, proposals that nobody answers."""
    silent = state.tick - state.heard_tick
    if silent == SILENT_TICKS:
        message = f"nothing was heard for {silent} s; what was known does not hold any more"
        _set(state, "TelemetryFresh", Verdict("False", "Silent", message, {"silent_s": float(silent)}), desk)
        rephase(state, desk)
    decide.time_out(state.ledger, state.tick, desk)
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
    _set(state, "Progressing", verdicts.no_step_ended(wait, state.stage), desk)
    if first:
        _conclude(state, desk)


def _watch_inputs(state: RunState, desk: Desk) -> None:
    """Profiles are no facts of a step: what they say is judged with time."""
    drift = inputs.drift(state.inputs)
    if drift is not None:
        condition = state.conditions["InDistribution"]
        _set(state, "InDistribution", verdicts.in_distribution(condition, drift), desk)


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
