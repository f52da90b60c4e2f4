"""A fold of a few lines, so that delivery can be tested exactly: one decision per row of a StepBatch, and nothing else.

Every decision carries the count and the sum of all rows before it: judged from a state that is a record behind, it
differs.
"""

from typing import Any

import msgspec

from pilothouse.events.commands import PolicyActivated, Tick
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.envelope import derived_id
from pilothouse.events.telemetry import RunEnded, StepBatch
from pilothouse.events.union import Record
from pilothouse.stream_processors.admission import Verdict
from pilothouse.stream_processors.fold import Folded
from pilothouse.stream_processors.live_runs import Core


class TinyState(msgspec.Struct):
    """`ticks` shows that time reached the run; `lost` counts accepted gaps."""

    run_id: str
    ended: bool = False
    policy_hash: str = ""
    positions: dict[str, int] = {}
    rows: int = 0
    total: float = 0.0
    ticks: int = 0
    lost: int = 0


def tiny_fold(state: TinyState, record: Record, *, accept_gap: bool = False) -> Folded:
    event = record.event
    last = state.positions.get(event.writer_id, event.seq - 1 if isinstance(event, Tick) else 0)
    if event.seq <= last:
        return _folded(state, Verdict.DUPLICATE)
    if event.seq > last + 1:
        if not accept_gap:
            return _folded(state, Verdict.GAP)
        state.lost += event.seq - last - 1
    state.positions[event.writer_id] = event.seq
    match event:
        case StepBatch():
            return _folded(state, Verdict.FOLDED, *_rows(state, record, event))
        case PolicyActivated():
            state.policy_hash = event.policy_hash
        case RunEnded():
            state.ended = True
        case Tick():
            state.ticks += 1
        case _:
            pass
    return _folded(state, Verdict.FOLDED)


def _rows(state: TinyState, record: Record, event: StepBatch) -> list[PhaseChanged]:
    decisions = []
    for step, loss in zip(event.steps, event.metrics["loss"], strict=True):
        decisions.append(
            PhaseChanged(
                at=event.at,
                run_id=event.run_id,
                attempt_id=event.attempt_id,
                attempt=event.attempt,
                decision_id=derived_id(event.run_id, event.attempt_id, "tiny", event.writer_id, step),
                basis=record.place,
                step=step,
                policy_hash="",  # whether the policy came before or after a row is not what is tested
                phase="Normal",
                was="Normal",
                reason="Row",
                evidence={"rows": state.rows, "total": state.total},
            )
        )
        state.rows += 1
        state.total += loss or 0.0
    return decisions


def _folded(state: TinyState, verdict: Verdict, *decisions: PhaseChanged) -> Folded:
    return Folded(_as_state(state), decisions, verdict)


def _as_state(state: Any) -> Any:
    return state  # Folded is typed for the real state; the shells do not look inside


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TinyState).decode

TINY = Core(new_state=TinyState, dump_state=_encode, load_state=_decode, fold=tiny_fold)
