"""The laws of the fold, on histories of runs that go wrong in every way: it does not matter how a history is told."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilothouse.events.commands import Tick
from pilothouse.events.decisions import ConditionChanged
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import RunStarted, StepBatch
from pilothouse.events.union import AnyDecision, AnyInput, Record
from pilothouse.stream_processors import judging
from pilothouse.stream_processors.admission import Verdict
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import EARLY_PENDING, MAX_EARLY, dump_state, load_state, new_state
from pilothouse.tests.governed_run import GovernedRun, decided, essence
from pilothouse.tests.run_builder import log, quiet_loss

SOME = settings(max_examples=40)
"""A history is a hundred records or more: fewer of them, for the whole suite must be quick."""
FAULTS = st.lists(
    st.tuples(st.integers(0, 70), st.integers(1, 12), st.sampled_from([0.6, 3.0, 50.0, math.nan, math.inf])), max_size=3
)


def ranks_apart(slow: int, since: int) -> Callable[[int, int], dict[str, float]]:
    """What ranks tell beside: one of them is slow, has other weights and is struck, from a step on."""

    def beside(step: int, rank: int) -> dict[str, float]:
        wrong = rank == slow and step >= since
        jitter = 1.0 + 0.05 * math.sin(7.1 * step + 3.3 * rank)
        return {
            "data_wait_s": 0.01 * jitter,
            "compute_s": jitter * (2.0 if wrong else 1.0),
            "comm_s": 0.2 if wrong else 0.2 + (step >= since),
            "param_norm": 100.0 + 0.1 * step + (0.1 if wrong and step % 16 > 8 else 0.0),
            "local_grad_norm": jitter * (100.0 if wrong and step % 3 == 0 else 1.0 + rank),
        }

    return beside


@st.composite
def histories(draw: st.DrawFn, ticking: bool = True, most: int = 60) -> GovernedRun:
    """A governed run of one to four ranks, with faults, obeyed rollbacks, perhaps a restart, perhaps an end."""
    faults = draw(FAULTS)
    bad_rank = draw(st.integers(0, 3))

    def loss(position: int, step: int, rank: int) -> float:
        extra = [size for start, length, size in faults if start <= position < start + length]
        told = quiet_loss(step, rank)
        return told + sum(size for size in extra if math.isfinite(size) or rank == bad_rank)

    since = draw(st.integers(0, 40)) if draw(st.booleans()) else None
    run = GovernedRun(
        world=draw(st.integers(1, 4)),
        loss=loss,
        beside=(lambda *_: {}) if since is None else ranks_apart(draw(st.integers(0, 3)), since),
        mode=draw(st.sampled_from(["enforce", "enforce", "propose", "observe"])),
        checkpoint_every=draw(st.sampled_from([0, 3, 10])),
        obeys=draw(st.booleans()) or draw(st.booleans()),
    ).begin()
    per_tick = draw(st.integers(1, 9)) if ticking else 10_000
    run.train(draw(st.integers(1, most)), steps_per_tick=per_tick)
    if draw(st.booleans()):
        run.begin_attempt("restart", "restarted", max(0, run.step - draw(st.integers(0, 9))))
        run.train(draw(st.integers(1, 20)), steps_per_tick=per_tick)
    return run.end() if draw(st.booleans()) else run


def told(run: GovernedRun) -> list[AnyInput]:
    return [record.event for record in run.records]


def per_writer(facts: Sequence[AnyInput]) -> dict[str, list[AnyInput]]:
    writers: dict[str, list[AnyInput]] = {}
    for fact in facts:
        writers.setdefault(fact.writer_id, []).append(fact)
    return writers


def interleaved(facts: Sequence[AnyInput], data: st.DataObject) -> Iterator[AnyInput]:
    """The facts of each writer in their order, the writers in any."""
    waiting = per_writer(facts)
    while waiting:
        writer = data.draw(st.sampled_from(sorted(waiting)))
        for _ in range(min(data.draw(st.sampled_from([1, 3, 1_000])), len(waiting[writer]))):
            yield waiting[writer].pop(0)
        if not waiting[writer]:
            del waiting[writer]


def between_ticks(facts: Sequence[AnyInput]) -> Iterator[tuple[list[AnyInput], Tick | None]]:
    segment: list[AnyInput] = []
    for fact in facts:
        if isinstance(fact, Tick):
            yield segment, fact
            segment = []
        else:
            segment.append(fact)
    yield segment, None


def batched(facts: Sequence[AnyInput], data: st.DataObject) -> list[AnyInput]:
    """The same rows in other batches, numbered anew; none reaches beyond what else its rank told, or a Tick."""
    rebatched: list[AnyInput] = []
    open_batch: dict[str, list[StepBatch]] = {}

    def close(writer: str) -> None:
        rows = open_batch.pop(writer, [])
        if rows:
            rebatched.append(_joined(rows))

    for fact in facts:
        if isinstance(fact, StepBatch):
            if open_batch.get(fact.writer_id, [fact])[-1].attempt_id != fact.attempt_id:
                close(fact.writer_id)
            open_batch.setdefault(fact.writer_id, []).append(fact)
            if data.draw(st.booleans()):
                close(fact.writer_id)
            continue
        for writer in list(open_batch) if isinstance(fact, Tick) else [fact.writer_id]:
            close(writer)
        rebatched.append(fact)
    for writer in list(open_batch):
        close(writer)
    return list(renumbered(rebatched))


def renumbered(facts: Sequence[AnyInput]) -> Iterator[AnyInput]:
    """As if each writer had told exactly these."""
    numbers: dict[str, int] = {}
    for fact in facts:
        numbers[fact.writer_id] = seq = numbers.get(fact.writer_id, 0) + 1
        yield fact.model_copy(update={"seq": seq})


def _joined(rows: Sequence[StepBatch]) -> StepBatch:
    columns = {name: tuple(value for row in rows for value in row.metrics[name]) for name in rows[0].metrics}
    steps, times = (tuple(x for row in rows for x in getattr(row, name)) for name in ("steps", "times"))
    return rows[-1].model_copy(update={"steps": steps, "times": times, "metrics": columns})


def test_what_ranks_say_of_each_other_is_decided_in_these_histories() -> None:
    """Else the laws would say nothing of it."""
    run = GovernedRun(beside=ranks_apart(2, 40), checkpoint_every=0).begin().train(80)
    reasons = {known.reason for known in run.of(ConditionChanged)}
    assert {"Straggler", "RanksDisagree"} <= reasons
    assert run.state.features.ranks.apart.strikes > 0.0


@SOME
@given(histories())
def test_the_fold_is_deterministic(run: GovernedRun) -> None:
    again = list(decided(run.records))
    assert list(map(repr, again)) == list(map(repr, run.decisions))


@SOME
@given(histories(), st.data())
def test_rows_told_again_or_of_steps_gone_by_change_nothing(run: GovernedRun, data: st.DataObject) -> None:
    facts: list[AnyInput] = []
    for fact in told(run):
        facts.append(fact)
        if isinstance(fact, StepBatch) and data.draw(st.booleans()):
            back = data.draw(st.integers(0, fact.steps[0]))
            facts.append(fact.model_copy(update={"steps": (back,), "metrics": {"loss": (math.nan,)}}))
    assert essence(decided(log(renumbered(facts)))) == essence(run.decisions)


@SOME
@given(histories())
def test_no_two_decisions_share_an_id(run: GovernedRun) -> None:
    ids = [decision.event_id for decision in run.decisions]
    assert len(ids) == len(set(ids))


@SOME
@given(histories(), st.data())
def test_any_record_again_at_any_later_time_changes_nothing(run: GovernedRun, data: st.DataObject) -> None:
    state = new_state("run")
    decisions: list[Any] = []
    for index, record in enumerate(run.records):
        folded = fold(state, record)
        state = folded.state
        decisions += folded.decisions
        if data.draw(st.integers(0, 9)) == 0:
            before = dump_state(state)
            repeated = fold(state, run.records[data.draw(st.integers(0, index))])
            assert repeated == (state, (), Verdict.DUPLICATE, "")
            assert dump_state(state) == before
    assert list(map(repr, decisions)) == list(map(repr, run.decisions))


@SOME
@given(histories(), st.data())
def test_any_split_into_batches_gives_the_same_decisions(run: GovernedRun, data: st.DataObject) -> None:
    assert essence(decided(log(batched(told(run), data)))) == essence(run.decisions)


@SOME
@given(histories(), st.data())
def test_any_interleaving_of_ranks_between_ticks_gives_the_same_decisions(
    run: GovernedRun, data: st.DataObject
) -> None:
    policy, *rest = told(run)
    facts = [policy]
    for segment, tick in between_ticks(rest):
        facts += interleaved(segment, data)
        facts += [tick] if tick is not None else []
    assert essence(decided(log(facts))) == essence(run.decisions)


@SOME
@given(histories(ticking=False, most=EARLY_PENDING), st.data())
def test_any_interleaving_of_a_whole_history_gives_the_same_decisions(run: GovernedRun, data: st.DataObject) -> None:
    """As long as no rank is further ahead of rank 0 than a state keeps attempts, and their steps, that nobody
    announced.
    """
    policy, *facts = told(run)
    assume(len({fact.attempt_id for fact in facts if isinstance(fact, TrainerFact)}) <= MAX_EARLY)
    assert essence(decided(log([policy, *interleaved(facts, data)]))) == essence(run.decisions)


@SOME
@given(histories(), st.data())
def test_the_state_may_be_written_and_read_back_at_any_time(run: GovernedRun, data: st.DataObject) -> None:
    state = new_state("run")
    decisions: list[Any] = []
    for record in run.records:
        if data.draw(st.integers(0, 4)) == 0:
            written = dump_state(state)
            state = load_state(written)
            assert dump_state(state) == written
        folded = fold(state, record)
        state = folded.state
        decisions += folded.decisions
    assert list(map(repr, decisions)) == list(map(repr, run.decisions))


@SOME
@given(histories(), st.data())
def test_a_gap_leaves_the_state_as_it_was(run: GovernedRun, data: st.DataObject) -> None:
    """From any record on that is left out, the next of its writer is a gap, and the state is byte for byte the same."""
    left_out = data.draw(st.integers(0, len(run.records) - 1))
    missing = run.records[left_out].event
    state = new_state("run")
    for record in run.records[:left_out]:
        state = fold(state, record).state
    first_tick = isinstance(missing, Tick) and missing.seq == 1
    later = [record for record in run.records[left_out + 1 :] if record.event.writer_id == missing.writer_id]
    if not later or first_tick:  # nobody knows how old a ticker is: its first record of a run is never a gap
        return
    before = dump_state(state)
    assert fold(state, later[0]) == (state, (), Verdict.GAP, "")
    assert dump_state(state) == before
    accepted = fold(state, later[0], accept_gap=True)
    assert accepted.verdict is Verdict.FOLDED
    assert accepted.state.lost_records == 1
    assert any(
        decision.kind == "condition_changed" and decision.reason == "TelemetryLost" for decision in accepted.decisions
    )


@SOME
@given(histories(), st.data())
def test_a_fault_of_ours_resets_the_same_way_and_the_log_goes_on(run: GovernedRun, data: st.DataObject) -> None:
    fails_at = data.draw(st.integers(0, 100))

    def told_with_a_fault() -> tuple[list[str], list[str], bytes]:
        calls = iter(range(1_000_000))
        state, faults, decisions = new_state("run"), [], []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(judging, "step", lambda *_: _judge_or_fail(next(calls)))
            for record in run.records:
                folded = fold(state, record)
                assert folded.verdict is Verdict.FOLDED
                assert not (folded.fault and folded.decisions)
                state = folded.state
                faults += [folded.fault] if folded.fault else []
                decisions += [repr(decision) for decision in folded.decisions]
        return faults, decisions, dump_state(state)

    def _judge_or_fail(call: int) -> None:
        if call == fails_at:
            raise ZeroDivisionError("a fault of ours")

    first = told_with_a_fault()
    assert first == told_with_a_fault()
    assert first[0] in ([], ["ZeroDivisionError: a fault of ours"])


@SOME
@given(histories(ticking=False), st.data())
def test_what_is_told_of_attempts_that_are_over_is_ignored(run: GovernedRun, data: st.DataObject) -> None:
    """A rank of an old attempt that speaks for ever changes no decision."""
    state = new_state("run")
    decisions: list[AnyDecision] = []
    attempts: list[str] = []
    for record in run.records:
        folded = fold(state, record)
        state = folded.state
        decisions += folded.decisions
        if isinstance(record.event, RunStarted):
            attempts.append(record.event.attempt_id)
        if len(attempts) > 1 and data.draw(st.booleans()):
            ghost = Record(record.place, _ghost(data.draw(st.sampled_from(attempts[:-1])), record.place.offset))
            assert fold(state, ghost) == (state, (), Verdict.FOLDED, "")
    assert essence(decisions) == essence(run.decisions)


def _ghost(attempt_id: str, number: int) -> StepBatch:
    return StepBatch(
        at=1,
        run_id="run",
        writer_id=f"ghost-{number}",
        seq=1,
        attempt_id=attempt_id,
        attempt=1,
        rank=0,
        steps=(10_000,),
        times=(1,),
        metrics={"loss": (math.nan,)},
    )
