"""What `judging` leaves out where nothing has changed would have changed nothing."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pilothouse.governance import comparisons, decide, expressions, incidents, interventions, recovery, verification
from pilothouse.governance.desk import Desk
from pilothouse.stream_processors import judging
from pilothouse.stream_processors.run_state import RunState, dump_state, new_state
from pilothouse.tests.governed_run import GovernedRun, decided
from pilothouse.tests.property.test_fold_laws import histories
from pilothouse.tests.run_builder import activated, quiet_loss

RULES = (
    "margin < 0.9",
    "conditions.Recoverable == 'True'",
    "phase == 'Warmup'",
    "conditions.Stable == 'True'",
    "conditions.Stable == 'Unknown'",
    "conditions.Stable != 'True' && features.loss > 2.0",
    "has(features.loss_z) && features.loss_z > 1.0",
    "reasons.Finite == 'AllFinite' && margin > 0.9",
    "features.steps_since_good_checkpoint > 3.0",
)
ACTION = "actions: [{action: notify, message: seen}], cooldown_steps: 0, limit: {count: 64}"
ANY_RULES = st.lists(st.sampled_from(RULES), max_size=4, unique=True)
SEEN = settings(max_examples=25)


def policy_text(rules: list[str], held_for: int) -> str:
    text = "name: any\nmode: enforce\nrules:\n"
    for number, when in enumerate(rules):
        text += f'- {{name: rule-{number}, when: "{when}", for: {held_for}, {ACTION}}}\n'
    return text


def _conclude_plainly(state: RunState, desk: Desk) -> None:
    """Every stage, at every step."""
    verification.watch(state.ledger, judging.situation(state, desk), desk)
    healing = any(known.stage == "applied" for known in state.ledger.in_flight)
    before, onset = state.incident, judging.situation(state, desk).onset
    state.incident = incidents.advance(before, state.conditions, onset, healing, desk)
    state.score.incidents += before is None and state.incident is not None
    if before is not None and state.incident is None:
        interventions.calm(state.ledger)
    judging.rephase(state, desk)
    verification.expire(state.ledger, desk)
    decide.decide(state.ledger, judging.situation(state, desk), desk)


def _holds_plainly(expression: str, facts: dict[str, object]) -> bool:
    try:
        return expressions._compiled(expression).execute(expressions._needed(expression, facts)) is True
    except Exception:  # noqa: BLE001  # whatever it raises, it is not true
        return False


def same_without_short_cuts(run: GovernedRun) -> None:
    state = new_state("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "_conclude", _conclude_plainly)  # it never finds a run settled
        patch.setattr(expressions, "holds", _holds_plainly)
        again = list(decided(run.records, state))
    assert not state.settled
    good = recovery.last_good(state.candidates, before=None)
    assert run.state.good_step == (-1 if good is None else good.step)
    assert list(map(repr, again)) == list(map(repr, run.decisions))
    run.state.settled = False
    for condition in (*state.conditions.values(), *run.state.conditions.values()):
        if condition.status == "True":
            condition.below = 0  # it counts how often a judge was asked, and starts anew with the next failure
    assert dump_state(state) == dump_state(run.state)


@SEEN
@given(histories())
def test_every_stage_at_every_step_decides_the_same(run: GovernedRun) -> None:
    same_without_short_cuts(run)


@SEEN
@given(
    st.tuples(ANY_RULES, ANY_RULES),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 79), st.sampled_from([0.3, 0.36, 0.4, 2.0])), max_size=4),
    st.booleans(),
)
@example((["margin < 0.9"], ["margin < 0.9"]), 1, [(70, 0.36)], False)
def test_no_rule_is_passed_over_that_holds(
    rules: tuple[list[str], list[str]], held_for: int, rises: list[tuple[int, float]], again: bool
) -> None:
    """Whatever the loss does, another policy comes in the middle, and the run begins again."""

    def loss(_: int, step: int, rank: int) -> float:
        return quiet_loss(step, rank) + sum(height for first, height in rises if first <= step < first + 3)

    run = GovernedRun(world=1, loss=loss)
    run.begin(policy_text(rules[0], held_for)).train(50, steps_per_tick=9)
    run.fold(activated("run", policy_text(rules[1], held_for), seq=2))
    run.train(10, steps_per_tick=9)
    if again:
        run.begin_attempt("restart", "restarted", 40)
    run.train(30, steps_per_tick=9)
    same_without_short_cuts(run)


def test_a_run_that_is_well_is_found_settled() -> None:
    """Or the laws above would say nothing."""
    run = GovernedRun(world=1).begin().train(60)
    assert run.state.settled


def test_rules_are_asked_by_the_engine_where_they_do_more_than_compare() -> None:
    assert comparisons.compiled("features.loss + 1.0 > 2.0") is None
