from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli.demo.plan import CORRUPTED_BATCHES, FEWEST_STEPS, Setting, faults_of, legs_of
from pilothouse.cli.demo.questions import questions_about
from pilothouse.cli.demo.recipe import Recipe
from pilothouse.cli.demo.story import recipe_of
from pilothouse.producers.faults import read_faults
from pilothouse.stream_processors.detectors.usual import MAX_WARMUP

settings = st.builds(
    Setting,
    tag=st.just("test"),
    steps=st.integers(FEWEST_STEPS, 2_000),
    ranks=st.integers(1, 16),
    seed=st.integers(0, 100),
)


def test_governed_and_ungoverned_meet_the_same_faults_and_the_first_run_none() -> None:
    healthy, broken, governed = legs_of(Setting("test", 200, 4, 0))
    assert healthy.faults == ()
    assert broken.faults == governed.faults != ()
    assert [leg.mode for leg in (healthy, broken, governed)] == ["enforce", "observe", "enforce"]


def test_without_faults_one_run_is_governed_for_real() -> None:
    [quiet] = legs_of(Setting("test", 200, 4, 0), "quiet")
    assert (quiet.mode, quiet.faults) == ("enforce", ())


def test_the_governed_run_alone_is_the_one_of_all_three() -> None:
    setting = Setting("test", 200, 4, 0)
    assert legs_of(setting, "governed") == legs_of(setting)[2:]


@given(settings)
def test_a_good_checkpoint_lies_before_each_fault_whatever_the_size(setting: Setting) -> None:
    every = setting.checkpoint_every
    data, rate = faults_of(setting)
    first_good = next(step for step in range(every, setting.steps, every) if step > MAX_WARMUP)
    assert first_good < data.number("first")
    assert data.number("last") - data.number("first") + 1 == CORRUPTED_BATCHES
    assert rate.step % every not in (0, 1, 2), "a checkpoint right behind the fault would be poisoned unseen"
    assert data.number("last") < rate.step < setting.steps - 20


@given(settings)
def test_a_rank_reads_the_plan_that_was_made(setting: Setting) -> None:
    governed = legs_of(setting)[2]
    recipe = Recipe.of(recipe_of(setting, governed, Path("/nowhere")).text())
    assert read_faults(recipe.faults) == governed.faults
    assert recipe.run_id == setting.run_id(governed)


def test_the_questions_are_one_line_each_and_name_the_runs() -> None:
    asked = questions_about("demo-ab12-", "demo-ab12-governed")
    assert len(asked) >= 5
    for question in asked.values():
        assert "\n" not in question
        assert "{" not in question
        assert '"' not in question, "they are shown in double quotes"
        assert "demo-ab12-" in question
