"""The heart: `fold(state, record) -> (state, decisions)`. Pure: same state and record, same decisions, bit for bit.

Called by the governor for every record of the log, by `replay` for the records of the archive, by a backtest with
another policy. It consumes the state it is given (it is changed in place and returned) and never raises: a fault of
ours resets the run to a state that remembers only how far it has read and which attempt goes on, deterministically,
and is reported.
"""

from typing import NamedTuple

from ..events.actions import LR_MULTIPLIER
from ..events.commands import AdviceGiven, OperatorCommand, PipelineReported, PolicyActivated, RunAnnotated, Tick
from ..events.errors import PolicyInvalid
from ..events.telemetry import (
    DataProfiled,
    Heartbeat,
    RunEnded,
    RunStarted,
    StageChanged,
    StepBatch,
    TelemetryGap,
)
from ..events.union import AnyDecision, AnyTelemetry, Record
from ..governance import advice, decide, incidents, interventions, orders, suggestions, verification
from ..governance.conditions import forget
from ..governance.desk import Desk, Header
from ..governance.policy import load_policy, policy_hash
from ..governance.recovery import rewound
from . import features, gathering, judging, verdicts
from .admission import Verdict, admit, short
from .detectors import hang, inputs
from .detectors.sample import StepSample
from .run_state import MAX_EARLY, PAST_ATTEMPTS, Attempt, Held, RunState, SavedCheckpoint, new_state
from .told import REASON_LENGTH, meaning_of, take_effect

TICK_SPACING = 500_000
"""Ticks closer than this (microseconds) come from a second ticker and do not move time twice."""
LOST = "Lost"


class Folded(NamedTuple):
    """The new state and what was decided. `fault` is what went wrong in the core itself, for the dead-letter topic."""

    state: RunState
    decisions: tuple[AnyDecision, ...]
    verdict: Verdict
    fault: str = ""


def fold(state: RunState, record: Record, *, accept_gap: bool = False) -> Folded:
    """Take one record into account.

    On `Verdict.GAP` the state is unchanged: records before this one were never seen. Whoever knows that they are lost
    for good (a replay, a governor that has already looked again) calls with `accept_gap=True`.
    """
    lost_before = state.lost_records
    verdict = admit(state, record.event, accept_gap=accept_gap)
    if verdict is not Verdict.FOLDED:
        return Folded(state, (), verdict)
    desk = _desk(state, record)
    try:
        _take(state, record, desk)
        if state.lost_records > lost_before:
            judging.lost(state, state.lost_records - lost_before, "the log has a hole", desk)
    except Exception as error:  # noqa: BLE001  # whatever is wrong in here must not stop the log for every other run
        return Folded(_reset(state), (), Verdict.FOLDED, f"{type(error).__name__}: {error}"[:REASON_LENGTH])
    return Folded(state, tuple(desk.decisions), Verdict.FOLDED)


def _desk(state: RunState, record: Record) -> Desk:
    attempt = state.current
    lineage = (attempt.attempt_id, attempt.attempt) if attempt else ("", 0)
    desk = Desk(Header(state.run_id, *lineage, state.policy_hash), record.place, state.ordinals)
    desk.at = record.event.at
    desk.step = attempt.judged if attempt else -1
    return desk


def _reset(state: RunState) -> RunState:
    """What no fault of judging can have touched; judging begins anew with the next steps."""
    fresh = new_state(state.run_id)
    for name in ("policy_text", "policy_hash", "ended", "outcome", "past", "ordinals", "lost_records", "score"):
        setattr(fresh, name, getattr(state, name))
    for name in ("positions", "tickers", "asleep", "tick", "tick_at", "heard_tick"):
        setattr(fresh, name, getattr(state, name))
    if state.current is not None:
        fresh.current = _lineage(state.current)
    return fresh


def _lineage(attempt: Attempt) -> Attempt:
    return Attempt(
        attempt.attempt_id,
        attempt.attempt,
        started=attempt.started,
        started_tick=attempt.started_tick,
        reason=attempt.reason,
        first_step=attempt.first_step,
        world_size=attempt.world_size,
        steers=attempt.steers,
        judged=attempt.judged,
    )


def _take(state: RunState, record: Record, desk: Desk) -> None:
    match record.event:
        case StepBatch() as batch:  # nearly all of the log: asked first
            _trainer_fact(state, batch, desk)
        case Tick() as tick:
            _tick(state, tick, desk)
        case PolicyActivated() as activated:
            _activate(state, activated)
            desk.header.policy_hash = state.policy_hash
        case OperatorCommand() as order:
            orders.take(state.ledger, order, judging.situation(state, desk), desk)
        case AdviceGiven() as given:
            told = suggestions.take if suggestions.is_one(given) else decide.advised
            told(state.ledger, given, judging.situation(state, desk), desk)
        case RunAnnotated() | PipelineReported():
            pass  # evidence for people
        case fact:
            _trainer_fact(state, fact, desk)


def _tick(state: RunState, tick: Tick, desk: Desk) -> None:
    if state.ended or 0 <= tick.at - state.tick_at < TICK_SPACING:
        return
    state.tick, state.tick_at = state.tick + 1, tick.at
    if state.current is not None:
        gathering.lose_patience(state.current, state.tick)
        _advance(state, desk)
    desk.at = tick.at
    _pass_time(state, desk)


def _pass_time(state: RunState, desk: Desk) -> None:
    if state.ended:
        return
    if state.current is not None:
        judging.time_passed(state, desk)
    else:
        judging.unannounced(state, desk)
    if state.tick - state.heard_tick >= judging.LOST_TICKS:
        _end(state, LOST, desk)


def _activate(state: RunState, activated: PolicyActivated) -> None:
    """A policy that cannot be used changes nothing; whoever activates one checks it first."""
    try:
        policy = load_policy(activated.text)
    except PolicyInvalid:
        return
    state.policy_text, state.policy_hash = activated.text, policy_hash(activated.text)
    state.settled = False
    interventions.keep_rules(state.ledger, policy)


def _trainer_fact(state: RunState, fact: AnyTelemetry, desk: Desk) -> None:
    attempt = _attempt_of(state, fact)
    if attempt is None:
        return  # of an attempt that is over: evidence for the archive only
    if fact.rank == 0 and isinstance(fact, RunStarted):
        _announce(state, attempt, fact)
    if state.ended and attempt is state.current:
        state.ended, state.outcome = False, ""  # it was only thought to be lost
    judging.heard(state, desk)
    match fact:
        case StepBatch():
            _add_rows(state, attempt, fact, desk)
        case Heartbeat() | StageChanged() | DataProfiled():
            _note_aside(state, attempt, fact)
        case TelemetryGap():
            _note_gap(state, fact, desk)
        case RunEnded():
            _note_end(attempt, fact)
        case _:
            _hold(attempt, fact)
    _advance(state, desk)


def _add_rows(state: RunState, attempt: Attempt, batch: StepBatch, desk: Desk) -> None:
    late = attempt.late
    for turn in gathering.add_rows(attempt, batch, state.tick, state.ranks_past):
        judging.turned(state, turn, desk)
    if attempt.late > late:
        judging.lost(state, attempt.late - late, f"rows of rank {batch.rank} came after their steps were judged", desk)
    if not attempt.started:
        gathering.shed(attempt)


def _note_aside(state: RunState, attempt: Attempt, fact: Heartbeat | StageChanged | DataProfiled) -> None:
    """What rank 0 says that waits for no step: what it does, and what its inputs are like."""
    if fact.rank != 0:
        return
    if isinstance(fact, DataProfiled):
        inputs.profiled(state.inputs, fact)
        return
    attempt.moved, attempt.stage = attempt.moved or fact.stage != attempt.stage, fact.stage
    if attempt is state.current and fact.stage != state.stage:
        hang.moved(state.hang, state.stage, state.tick)
        state.stage = fact.stage


def _note_gap(state: RunState, gap: TelemetryGap, desk: Desk) -> None:
    """Calls that were refused lost nothing: they are for people, who find them in the archive."""
    count = sum(gap.dropped.values()) or sum(last - first + 1 for first, last in gap.missing)
    if count > 0:
        why = ", ".join(sorted(gap.dropped)) or "records are missing"
        judging.lost(state, count, why, desk)


def _note_end(attempt: Attempt, fact: RunEnded) -> None:
    if fact.rank == 0:
        attempt.end = (fact.step, fact.at, fact.outcome)


def _attempt_of(state: RunState, fact: AnyTelemetry) -> Attempt | None:
    """The attempt a fact belongs to; new ones are gathered beside the current until rank 0 has announced them."""
    known = [attempt for attempt in (state.current, *state.early) if attempt and attempt.attempt_id == fact.attempt_id]
    if known:
        return known[0]
    if short(fact.attempt_id) in state.past:
        return None
    if len(state.early) >= MAX_EARLY:
        unannounced = next((attempt for attempt in state.early if not attempt.started), None)
        if unannounced is None:
            return None  # too far ahead
        state.early.remove(unannounced)
    state.early.append(Attempt(fact.attempt_id, fact.attempt, started_tick=state.tick))
    return state.early[-1]


def _announce(state: RunState, attempt: Attempt, started: RunStarted) -> None:
    attempt.steers = tuple(dict.fromkeys(started.steers))  # a pilot that is attached later announces the attempt again
    attempt.values = interventions.known_values(started.values)
    if attempt is state.current and started.reason != "rollback":
        state.ledger.learn(attempt.values)
    if attempt.started:
        return
    gathering.start(attempt, started, state.tick)
    others = [known for known in state.early if known is not attempt]
    before = [known for known in others if known.started]
    state.early = [*before, attempt, *(known for known in others if not known.started)]


def _hold(attempt: Attempt, fact: AnyTelemetry) -> None:
    """Only rank 0 speaks for the run; what it tells of a step takes effect when that step has been judged."""
    told = meaning_of(fact) if fact.rank == 0 else None
    if told is not None:
        gathering.hold(attempt, Held(told[0], fact.at, told[1]))


def _advance(state: RunState, desk: Desk) -> None:
    """Judge what is ready, and go over to the next attempt once this one has nothing left."""
    while True:
        if state.current is not None and not state.ended:
            _judge_ready(state, state.current, desk)
        if not _may_switch(state):
            return
        _switch(state, desk)


def _judge_ready(state: RunState, attempt: Attempt, desk: Desk) -> None:
    _judge_items(state, attempt, desk, closing=False)
    if attempt.end is not None and (gathering.is_exhausted(attempt) or _is_overdue(state, attempt)):
        gathering.drop_beyond_rank_0(attempt)
        _judge_items(state, attempt, desk, closing=True)
        _end(state, attempt.end[2].title().replace("_", ""), desk)


def _judge_items(state: RunState, attempt: Attempt, desk: Desk, *, closing: bool) -> None:
    for item in gathering.ready(attempt, closing=closing):
        match item:
            case StepSample():
                if attempt.undecided:
                    _go_on(state, attempt, desk)
                judging.step(state, item, desk)
            case Held():
                desk.at = max(desk.at, item.at)
                take_effect(state, item.told, desk)


def _is_overdue(state: RunState, attempt: Attempt) -> bool:
    return bool(attempt.pending) and (
        state.tick - attempt.pending[min(attempt.pending)].first_tick >= gathering.PATIENCE_TICKS
    )


def _may_switch(state: RunState) -> bool:
    if not state.early or not state.early[0].started:
        return False
    if state.current is None or state.ended or gathering.is_exhausted(state.current):
        return True
    coming = state.early[0]
    return gathering.is_full(coming) or state.tick - coming.started_tick >= gathering.PATIENCE_TICKS


def _switch(state: RunState, desk: Desk) -> None:
    """The next attempt becomes the current one: another lineage of the same run."""
    old, new = state.current, state.early.pop(0)
    if old is not None:
        _judge_rest(state, old, desk)
        _remember_past(state, old)
    state.current, state.ended, state.outcome = new, False, ""
    desk.header.attempt_id, desk.header.attempt, desk.step = new.attempt_id, new.attempt, new.judged
    _go_back(state, old, new, desk)
    state.stage, state.heard_tick = new.stage, state.tick
    hang.begin(state.hang)
    if new.moved:
        hang.moved(state.hang, "train", state.tick)
    judging.heard(state, desk)
    judging.recoverable(state, desk)
    judging.rephase(state, desk)


def _remember_past(state: RunState, attempt: Attempt) -> None:
    state.past = [*state.past, short(attempt.attempt_id)][-PAST_ATTEMPTS:]


def _judge_rest(state: RunState, old: Attempt, desk: Desk) -> None:
    """What rank 0 told before it moved on still counts, but for checkpoints of steps that not every rank reached."""
    unjudged = min(old.pending, default=None)
    old.pending.clear()
    for item in gathering.ready(old, closing=True):
        if not isinstance(item, Held):
            continue
        if unjudged is None or item.step < unjudged or not isinstance(item.told, SavedCheckpoint):
            take_effect(state, item.told, desk)


def _go_back(state: RunState, old: Attempt | None, new: Attempt, desk: Desk) -> None:
    last_kept = new.first_step - 1
    features.rewind(state.features, last_kept)
    features.regroup(state.features)
    if old is not None:
        new.reached = old.reached if old.undecided else old.judged
    new.undecided = new.reason != "rollback"
    if not new.undecided:
        _give_up(state, new)
    if new.reason == "rollback":
        verification.went_back(state.ledger, old.attempt_id if old else "", new.attempt_id, desk)
    else:
        verification.abandon(state.ledger, "the run was started again", desk)
        # A fresh process multiplies by nothing, and one that goes on from a checkpoint by what stands in there.
        state.ledger.values = ({LR_MULTIPLIER: 1.0} if new.reason == "start" else {}) | new.values
    advice.abandon(state.ledger, "another attempt began", desk)
    for name, _ in verdicts.OF_A_STEP:
        forget(state.conditions[name], "NewAttempt")
    state.settled = False


def _go_on(state: RunState, attempt: Attempt, desk: Desk) -> None:
    """Its first step tells what a process that was started goes on from."""
    attempt.undecided = False
    _give_up(state, attempt)
    judging.recoverable(state, desk)


def _give_up(state: RunState, attempt: Attempt) -> None:
    """What the attempts before did behind its first step was in vain."""
    last_kept = attempt.first_step - 1
    state.candidates = rewound(state.candidates, last_kept)
    state.score.went_back(last_kept)
    if state.incident is not None:
        state.incident.steps_lost += max(0, attempt.reached - last_kept)


def _end(state: RunState, outcome: str, desk: Desk) -> None:
    """The run is over: nothing is judged any more, and the state shrinks to what a restart would need. What was only
    lost may be heard again, in the same attempt.
    """
    if state.ended:
        return
    verification.abandon(state.ledger, "the run ended", desk)
    advice.abandon(state.ledger, "the run ended", desk)
    incidents.end(state.incident, desk)
    state.ended, state.outcome, state.incident = True, outcome, None
    judging.rephase(state, desk)
    judging.assess(state, desk)
    state.asleep, state.last_features, state.ranks_past = list(state.tickers), {}, bytearray()
    if state.current is not None and outcome != LOST:
        _remember_past(state, state.current)
        state.current = None
