"""Which metrics leave which rank: what is judged always, what is left out by a rule that is told and counted."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.errors import UserMistake
from pilothouse.events.metric_names import JUDGED
from pilothouse.events.telemetry import RunEnded, StepBatch, TelemetryGap
from pilothouse.producers.metrics.thinning import Thinning, is_local, left_out, refuse_mistakes, said
from pilothouse.producers.metrics.values import Admission
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.outbox_bench import WHO, Bench

METRICS = {"loss": 1.0, "accuracy": 0.5, "train/data_wait_s": 0.1, "layer/3/weight_norm": 2.0, "tokens_per_s": 9.0}
NAMES = st.sampled_from(["loss", "lr", "accuracy", "x/grad_norm", "step_time", "layer/1/mean", "tokens"])


def test_rank_zero_tells_everything_unless_it_is_asked_not_to() -> None:
    assert Thinning().kept(7, METRICS) is METRICS
    assert Thinning().idle


def test_other_ranks_tell_what_is_judged_times_throughput_and_norms() -> None:
    assert set(Thinning(rank=1).kept(7, METRICS)) == METRICS.keys() - {"accuracy"}


@pytest.mark.parametrize("name", ["data_wait_s", "val/step_time", "latency_ms", "tokens", "samples_per_sec", "norm_l2"])
def test_times_throughput_and_norms_are_local(name: str) -> None:
    assert is_local(name)


@pytest.mark.parametrize("name", ["accuracy", "f1", "normalizer", "status", "layernorm/bias", "timestep_embedding"])
def test_what_every_rank_would_tell_the_same_is_not_local(name: str) -> None:
    assert not is_local(name)


def test_a_number_makes_what_is_not_judged_rarer_on_all_ranks_at_the_same_steps() -> None:
    for rank, names in ((0, METRICS.keys()), (5, METRICS.keys() - {"accuracy"})):
        kept = [Thinning(10, rank).kept(step, METRICS) for step in range(21)]
        assert [set(row) for row in kept] == [set(names) if step % 10 == 0 else {"loss"} for step in range(21)]


def test_a_pattern_decides_for_every_rank_and_leaves_the_rest_as_it_was() -> None:
    every = {"layer/*": 5, "acc*": 1}
    for rank in (0, 3):
        thinning = Thinning(every, rank)
        assert set(thinning.kept(4, METRICS)) == METRICS.keys() - {"layer/3/weight_norm"}
        assert set(thinning.kept(5, METRICS)) == METRICS.keys()


@given(
    st.integers(1, 50) | st.dictionaries(st.sampled_from(["*", "l*", "loss", "x/*"]), st.integers(1, 50)),
    st.integers(0, 3),
    st.integers(0, 1_000),
    st.dictionaries(NAMES, st.floats(), min_size=1),
)
def test_what_is_judged_is_never_left_out_and_no_row_is_empty(
    every: Any, rank: int, step: int, metrics: dict[str, float]
) -> None:
    kept = Thinning(every, rank).kept(step, metrics)
    assert kept
    assert {name: metrics[name] for name in metrics.keys() & JUDGED} == {
        name: kept[name] for name in metrics if name in JUDGED
    }
    assert left_out(metrics, kept) == len(metrics) - sum(value is not None for value in kept.values())


@pytest.mark.parametrize("every", [0, -1, 1.5, "10", True, None, {"x": 0}, {"": 2}, {3: 2}, {"x": "y"}, 2**40])
def test_a_rule_that_is_none_is_one_clear_line(every: object) -> None:
    with pytest.raises(UserMistake, match="every must be a whole number of steps") as mistake:
        refuse_mistakes(every)
    assert "\n" not in str(mistake.value)


def test_the_rule_is_told_and_a_run_without_one_tells_nothing() -> None:
    assert said(1, 1) == {}
    assert said(10, 8) == {
        "thinning": "loss, grad_norm, lr: always; every 10 steps; ranks above 0: times, throughput, norms"
    }


def thinned_run(folder: Path, every: int = 1, rank: int = 3) -> tuple[Run, Bench]:
    bench = Bench(folder)
    bench.outbox.admission = Admission(bench.outbox.bad_calls, Thinning(every, rank))
    return Run(WHO._replace(rank=rank, world_size=8), Settings(data_dir=folder), {}, bench.outbox), bench


def test_what_the_rule_leaves_out_is_counted_and_no_loss(tmp_path: Path) -> None:
    run, bench = thinned_run(tmp_path)
    for step in range(40):
        run.log(step, **METRICS)
        bench.clock.now += 0.5
        bench.settle()
    run.tell(RunEnded, outcome="completed", step=39)
    bench.settle()
    batches = [fact for fact in bench.log.facts() if isinstance(fact, StepBatch)]
    assert {name for batch in batches for name in batch.metrics} == METRICS.keys() - {"accuracy"}
    gaps = [fact for fact in bench.log.facts() if isinstance(fact, TelemetryGap)]
    assert sum(gap.thinned for gap in gaps) == 40
    assert len(gaps) < 8  # told when it has doubled, and at the end
    assert not any(gap.dropped or gap.refused for gap in gaps)
    assert run.counts().dropped == 0
    assert run.counts().accepted == run.counts().sent


def test_a_row_of_which_nothing_is_left_still_tells_its_step(tmp_path: Path) -> None:
    run, bench = thinned_run(tmp_path)
    for step in range(3):
        run.log(step, accuracy=1.0, f1=0.5)
    bench.settle()
    batches = [fact for fact in bench.log.facts() if isinstance(fact, StepBatch)]
    assert [step for batch in batches for step in batch.steps] == [0, 1, 2]
    assert {name: set(column) for batch in batches for name, column in batch.metrics.items()} == {"accuracy": {None}}


def test_a_device_is_not_asked_for_what_the_rule_leaves_out(tmp_path: Path) -> None:
    class Watched(float):
        asked = 0

        def __float__(self) -> float:
            Watched.asked += 1
            return 1.0

    run, bench = thinned_run(tmp_path, every=10, rank=0)
    for step in range(1, 10):
        run.log(step, loss=1.0, accuracy=Watched())
    bench.settle()
    assert Watched.asked == 0
