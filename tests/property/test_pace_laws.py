"""How long a run stood still, what it did meanwhile and what its inputs are like do not depend on how it is told."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.events.decisions import ConditionChanged
from pilothouse.events.telemetry import DataProfiled
from pilothouse.events.union import AnyDecision
from pilothouse.stream_processors.run_state import dump_state, load_state, new_state
from pilothouse.tests.governed_run import GovernedRun, decided, essence
from pilothouse.tests.property.test_fold_laws import batched, between_ticks, interleaved, told
from pilothouse.tests.run_builder import log

SOME = settings(max_examples=15)
"""A history is some hundred records."""
LIVED = st.lists(
    st.one_of(
        st.tuples(st.just("train"), st.integers(1, 12)),
        st.tuples(st.just("slowly"), st.integers(2, 5)),
        st.tuples(st.sampled_from(["evaluate", "checkpoint", "paused"]), st.integers(0, 40)),
        st.tuples(st.just("hang"), st.integers(1, 50)),
        st.tuples(st.just("profile"), st.integers(0, 5)),
        st.tuples(st.just("restart"), st.integers(0, 6)),
    ),
    max_size=8,
)


def profile(run: GovernedRun, shift: int) -> None:
    counts = tuple(100 + 60 * ((bin_ + shift) % 5) for bin_ in range(5))
    run.tell(
        run.ranks[0], run.ranks[0].tell, DataProfiled, step=run.step, feature="x", edges=(1, 2, 3, 4), counts=counts
    )


@st.composite
def lives(draw: st.DrawFn) -> GovernedRun:
    """A run of one to three ranks that stops now and then, for one reason or another."""
    run = GovernedRun(world=draw(st.integers(1, 3)), checkpoint_every=0, obeys=False).begin()
    run.train(draw(st.integers(1, 30)), steps_per_tick=draw(st.integers(1, 4)))
    for what, amount in draw(LIVED):
        match what:
            case "train":
                run.train(amount)
            case "slowly":
                for _ in range(amount):
                    run.train(1).heartbeats(8)
            case "hang":
                run.heartbeats(amount)
            case "profile":
                for window in range(8):
                    profile(run, amount if window > 4 else 0)
                    run.train(1)
            case "restart":
                run.begin_attempt("restart", f"again {run.attempt}", max(0, run.step - amount))
            case _:
                run.stage(what).heartbeats(amount, what)
                run.stage("train")
    return run.train(3).tick()


@SOME
@given(lives(), st.data())
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
@given(lives(), st.data())
def test_any_split_into_batches_gives_the_same_decisions(run: GovernedRun, data: st.DataObject) -> None:
    assert essence(decided(log(batched(told(run), data)))) == essence(run.decisions)


@SOME
@given(lives(), st.integers(2, 40))
def test_the_state_may_be_written_and_read_back_at_any_time(run: GovernedRun, every: int) -> None:
    state, decisions = new_state("run"), list[AnyDecision]()
    for number, record in enumerate(run.records):
        if number % every == 0:
            state = load_state(dump_state(state))
        decisions += decided([record], state)
    assert essence(decisions) == essence(run.decisions)


def test_hangs_stages_and_drifts_are_decided_in_these_histories() -> None:
    run = GovernedRun(checkpoint_every=0, obeys=False).begin().train(20).heartbeats(60).train(5)
    for window in range(12):
        profile(run, 2 if window > 6 else 0)
        run.train(1)
    said = {(found.condition, found.status) for found in run.of(ConditionChanged)}
    assert {("Progressing", "False"), ("InDistribution", "False")} <= said
