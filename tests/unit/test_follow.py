"""A run that does what was done to another: at the same steps, from a governed run's own history, to the last bit."""

import json
import logging
import math
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch

import pilothouse
from pilothouse.cli.planning import plan_of
from pilothouse.events.actions import Rollback, ScaleLr, SetClip, SkipBatches, Stop
from pilothouse.events.commands import PipelineReported
from pilothouse.events.decisions import OPERATOR, InterventionIssued
from pilothouse.events.envelope import LogPlace, TrainerFact
from pilothouse.events.errors import UserMistake
from pilothouse.events.telemetry import RunEnded, RunStarted, StepBatch
from pilothouse.events.union import AnyDecision, Record
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.ranks.ballots import LocalBallots, StoreBallots
from pilothouse.producers.steering.departure import Departure, Followed, alike, verdict
from pilothouse.producers.steering.departure import refuse_mistakes as refuse_wrong_tolerance
from pilothouse.producers.steering.following import Following
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.producers.steering.plan import Plan, Planned, Stretch, plan_file, read_plan
from pilothouse.producers.steering.safe_point import Links
from pilothouse.settings import Settings
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.run_state import new_state
from pilothouse.tests.outbox_bench import MemoryLog, open_run
from pilothouse.tests.pilot_world import Order, Script, Tape, links_of
from pilothouse.tests.run_builder import activated

POLICY = """
name: healing
mode: enforce
rules:
- name: heal
  when: conditions.Finite == 'False'
  actions: [{action: rollback, skip_batches: 3, lr_factor: 0.5}]
- name: clip
  when: has(features.loss) && features.loss < 1.0
  cooldown_steps: 1000
  actions: [{action: set_clip, value: 0.25}]
"""
STEPS = 60


class GovernedTape(Tape):
    """A run that is governed on the spot: what it tells is folded, and what is decided comes back as commands."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.decisions: list[AnyDecision] = []
        self._state = new_state("run-1")
        self._commands: deque[InterventionIssued] = deque()
        self._seq = 1
        self._fold(activated("run-1", POLICY))

    def tell(self, fact: type[TrainerFact], **fields: Any) -> None:
        super().tell(fact, **fields)
        self._say(fact, **fields)

    def _say(self, fact: type[Any], **fields: Any) -> None:
        run_id, attempt_id, attempt, rank, _ = self.identity
        who = {"run_id": run_id, "attempt_id": attempt_id, "attempt": attempt, "rank": rank, "at": 0}
        self._fold(fact(**who, writer_id="writer", seq=self._seq, **fields))
        self._seq += 1

    def begin_attempt(self, reason: Any, first_step: int, parent: Any = None, attempt_id: Any = None) -> Any:
        begun = super().begin_attempt(reason, first_step, parent, attempt_id)
        self._say(RunStarted, reason=reason, first_step=first_step, world_size=1, steers=self.steerable)
        return begun

    def steers(self, actions: Any, values: Any = dict) -> None:
        super().steers(actions, values)
        self._say(RunStarted, reason="start", first_step=0, world_size=1, steers=actions)

    def log(self, step: int, **metrics: float) -> None:
        columns = {name: (value,) for name, value in metrics.items()}
        self._say(StepBatch, steps=(step,), times=(0,), metrics=columns)

    def _fold(self, event: Any) -> None:
        record = Record(LogPlace(0, 0, len(self.records)), event)
        self.records.append(record)
        folded = fold(self._state, record)
        assert not folded.fault, folded.fault
        self._state = folded.state
        self.decisions += folded.decisions
        self._commands += [one for one in folded.decisions if isinstance(one, InterventionIssued)]

    def take(self) -> InterventionIssued | None:
        return self._commands.popleft() if self._commands else None

    def judged(self) -> Judgement:
        return Judgement()

    def close(self, within: float = 0.0) -> None:
        pass


class Training:
    """A small training; batch 30 of its data is broken. `rows` are (step, loss) as they were logged."""

    def __init__(
        self, run: Any, folder: Path, following: Following | None = None, lr: float = 0.05, **pilot: Any
    ) -> None:
        torch.manual_seed(3)
        self.run = run
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.data = torch.randn(200, 4, 4, generator=torch.Generator().manual_seed(5))
        self.data[30] = math.nan
        checkpoints = Checkpoints(folder, every=10, keep=1 if following else 9)
        parts: dict[str, Any] = {"checkpoints": checkpoints, "knobs": {"clip": 1.0}} | pilot
        if isinstance(run, Tape):
            self.pilot = Pilot(run, self.model, self.optimizer, settings=Settings(), following=following, **parts)
        else:
            self.pilot = run.pilot(self.model, self.optimizer, **parts)
        self.rows: list[tuple[int, float]] = []

    def train(self, steps: int = STEPS) -> "Training":
        for step, batch in self.pilot.batches(self.data, steps):
            self.optimizer.zero_grad()
            loss = (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.pilot.knob("clip") or 1.0)
            self.optimizer.step()
            self.rows.append((step, loss.item()))
            self.run.log(step, loss=loss.item())
            self.pilot.safe_point(step)
        self.pilot.close()
        return self

    def weights(self) -> bytes:
        return b"".join(tensor.numpy().tobytes() for tensor in self.model.state_dict().values())


class Governed:
    """A governed training, and the plan of it."""

    def __init__(self, folder: Path) -> None:
        tape = GovernedTape()
        self.training = Training(tape, folder, links=lambda *_: Links(LocalBallots(), tape)).train()
        tape.tell(RunEnded, outcome="completed", step=STEPS - 1)
        self.plan = plan_of("run-1", tape.records, tape.decisions)


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Governed:
    governed = Governed(tmp_path_factory.mktemp("governed"))
    kinds = [planned.action.action for planned in governed.plan.interventions]
    assert sorted(set(kinds)) == ["rollback", "set_clip"], kinds
    return governed


def follower(plan: Plan) -> tuple[Tape, Following]:
    tape = LoggingTape(attempt_id="another", run_id="run-2")
    return tape, Following(tape, plan)


class LoggingTape(Tape):
    def log(self, step: int, **metrics: float) -> None:
        pass


def same(rows: list[tuple[int, float]]) -> list[tuple[int, str]]:
    return [(step, repr(loss)) for step, loss in rows]


def test_a_governed_run_is_trained_again_to_the_last_bit(governed: Governed, tmp_path: Path) -> None:
    tape, following = follower(governed.plan)
    again = Training(tape, tmp_path, following, links=links_of(None)).train()
    assert following.fault == ""
    assert following.done == len(governed.plan.interventions)
    assert same(again.rows) == same(governed.training.rows)
    assert again.weights() == governed.training.weights()


def test_without_following_the_same_seed_goes_another_way(governed: Governed, tmp_path: Path) -> None:
    alone = Training(LoggingTape(), tmp_path, links=links_of(None)).train()
    assert alone.weights() != governed.training.weights()


def test_its_own_checkpoints_are_gone_back_to_and_the_one_that_is_needed_is_never_removed(
    governed: Governed, tmp_path: Path
) -> None:
    tape, following = follower(governed.plan)
    Training(tape, tmp_path, following, links=links_of(None)).train()
    back = [planned for planned in governed.plan.interventions if isinstance(planned.action, Rollback)]
    restored = tape.of("checkpoint_restored")
    assert [fields["step"] for fields in restored] == [p.action.checkpoint.step for p in back]  # type: ignore[union-attr]  # a plan names them
    assert all(str(tmp_path) in fields["path"] for fields in restored)


def test_where_it_cannot_be_done_it_is_said_and_training_goes_on(
    governed: Governed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape, following = follower(governed.plan)
    training = Training(tape, tmp_path, following, links=links_of(None), checkpoints=None).train()
    assert "NotSteerable" in following.fault
    assert "run-1 is followed no more" in caplog.text
    assert training.rows[-1][0] == STEPS - 1


def test_what_the_governor_orders_besides_is_refused_and_a_persons_stop_is_obeyed(tmp_path: Path) -> None:
    plan = Plan(run_id="run-1", interventions=(planned(0, 30, ScaleLr(factor=0.5)),))
    tape, following = follower(plan)
    orders = [Order(3, SetClip(value=0.5)), Order(5, Stop(checkpoint=False), {"rule": OPERATOR})]
    script = Script(tape, orders)
    training = Training(tape, tmp_path, following, links=links_of(script))
    for step, _ in training.pilot.batches(range(100), 40):
        script.step = step
        training.pilot.safe_point(step)
    assert tape.receipt("i-1")["reason"].startswith("Following: ")
    assert tape.receipt("i-2")["outcome"] == "applied"
    assert tape.outcome == "stopped"
    assert (following.done, following.fault) == (0, "")


def planned(stretch: int, step: int, action: Any, name: str = "") -> Planned:
    name = name or f"p-{stretch}-{step}-{action.action}"
    return Planned(stretch=stretch, step=step, intervention_id=name, rule="r", action=action)


def test_two_at_one_step_and_one_at_the_next_are_all_done_there(tmp_path: Path) -> None:
    actions = [(4, ScaleLr(factor=0.5)), (4, SkipBatches(count=2)), (5, ScaleLr(factor=0.5))]
    plan = Plan(run_id="run-1", interventions=tuple(planned(0, step, action) for step, action in actions))
    tape, following = follower(plan)
    training = Training(tape, tmp_path, following, links=links_of(None)).train(10)
    assert [(fields["outcome"], fields["step"]) for fields in tape.of("intervention_receipt")] == [
        ("applied", 4), ("applied", 4), ("applied", 5)
    ]  # fmt: skip
    assert training.pilot.lr_multiplier == 0.25


def test_a_loop_of_other_steps_follows_no_more(tmp_path: Path) -> None:
    tape, following = follower(Plan(run_id="run-1", interventions=(planned(0, 5, ScaleLr(factor=0.5)),)))
    training = Training(tape, tmp_path, following, links=links_of(None))
    for step in range(0, 20, 2):
        training.pilot.safe_point(step)
    assert following.fault.startswith("scale_lr was due at step 5 of stretch 0, and this run is at step 6")
    assert training.pilot.lr_multiplier == 1.0


def test_who_starts_again_from_a_checkpoint_goes_on_following(governed: Governed, tmp_path: Path) -> None:
    tape, following = follower(governed.plan)
    Training(tape, tmp_path, following, links=links_of(None)).train(45)
    fresh = LoggingTape(attempt_id="after-the-crash", run_id="run-2")
    resumed = Following(fresh, governed.plan)
    training = Training(fresh, tmp_path, resumed, links=links_of(None))
    assert training.pilot.restore_latest() == 40
    training.train()
    assert resumed.fault == ""
    assert resumed.done == len(governed.plan.interventions)
    assert training.weights() == governed.training.weights()


def test_from_a_checkpoint_that_follows_nothing_nothing_is_followed(governed: Governed, tmp_path: Path) -> None:
    Training(LoggingTape(), tmp_path, links=links_of(None)).train(15)
    tape, following = follower(governed.plan)
    Training(tape, tmp_path, following, links=links_of(None)).pilot.restore_latest()
    assert "a run that did not follow" in following.fault


# -------------------------------------------------------------------------------------------- where the telemetry left


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def followed(plan: Plan, folder: Path, log: MemoryLog, tolerance: float = 0.0, **training: Any) -> Followed:
    """The plan followed by a real run; what it told is in the log."""
    run = open_run(folder, log)
    following = Following(run, plan)
    walk = Followed(following, Departure(following, tolerance))
    run.follow(walk)
    with run:
        Training(run, folder / "checkpoints", following, links=links_of(None), **training).train()
    return walk


def test_a_reproduction_is_told_as_one(governed: Governed, tmp_path: Path, log: MemoryLog) -> None:
    walk = followed(governed.plan, tmp_path, log)
    assert walk.departure.left is None
    assert walk.departure.compared == len(governed.training.rows)
    (fact,) = log.of(PipelineReported)
    assert (fact.fact, fact.subject, fact.numbers) == ("reproduction", "run-1", {"attempted": 1.0, "reproduced": 1.0})
    assert log.facts()[-1].kind == "run_ended"


def test_the_first_step_that_differs_is_named_with_both_values(
    governed: Governed, tmp_path: Path, log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    walk = followed(governed.plan, tmp_path, log, lr=0.05 * (1 + 1e-5))
    left = walk.departure.left
    assert left is not None
    there = dict(governed.training.rows[:30])
    assert there[left.step] == left.was != left.now
    here = {
        step: loss
        for batch in log.of(StepBatch)
        if "loss" in batch.metrics
        for step, loss in zip(batch.steps, batch.metrics["loss"], strict=True)
    }
    assert all(here[step] == loss for step, loss in there.items() if step < left.step)
    assert f"left run run-1 at step {left.step}: loss {left.now!r} here, {left.was!r} there" in caplog.text
    (fact,) = log.of(PipelineReported)
    assert fact.numbers["reproduced"] == 0.0
    assert f"left at step {left.step}" in fact.note


def test_within_its_tolerance_a_run_is_the_same(governed: Governed, tmp_path: Path, log: MemoryLog) -> None:
    walk = followed(governed.plan, tmp_path, log, tolerance=0.05, lr=0.05 * (1 + 1e-5))
    assert walk.departure.left is None


@pytest.mark.parametrize(
    "was, now, tolerance, expected",
    [
        (1.0, 1.0, 0.0, True),
        (1.0, math.nextafter(1.0, 2.0), 0.0, False),
        (1.0, 1.0 + 1e-9, 1e-6, True),
        (math.nan, math.nan, 0.0, True),
        (math.nan, 1.0, 0.5, False),
        (math.inf, math.inf, 0.0, True),
        (math.inf, 1.0, 0.5, False),
        (math.inf, -math.inf, 0.5, False),
        (0.0, -0.0, 0.0, True),
        (1e308, -1e308, 0.9, False),
    ],
)
def test_two_values_are_alike_or_not(was: float, now: float, tolerance: float, expected: bool) -> None:
    assert alike(was, now, tolerance) is expected


def test_a_run_that_ended_before_the_plan_did_reproduces_nothing() -> None:
    _, following = follower(Plan(run_id="r", interventions=(planned(0, 9, ScaleLr(factor=0.5)),)))
    departure = Departure(following)
    said = "0 of 1 interventions applied at their steps; no loss or gradient norm to compare"
    assert verdict(following, departure) == (False, said)
    departure.compared = 4
    assert verdict(following, departure)[0] is False


# --------------------------------------------------------------------------------------------------- the person's side


def test_a_plan_is_found_by_its_file_or_by_its_run(tmp_path: Path) -> None:
    plan = Plan(run_id="gpt/1", stretches=(Stretch(steps=(0,), loss=(math.nan,), grad_norm=(None,)),))
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "mine.json").write_text(plan.model_dump_json())
    home = plan_file("gpt/1", settings)
    home.parent.mkdir(parents=True)
    home.write_text(plan.model_dump_json())
    read = [read_plan(name, settings) for name in (str(tmp_path / "mine.json"), tmp_path / "mine.json", "gpt/1", plan)]
    assert {one.model_dump_json() for one in read} == {plan.model_dump_json()}


@pytest.mark.parametrize(
    "follow, said",
    [
        ("gpt-1", "`pilothouse plan gpt-1` writes one"),
        (7, "a run's id or the file of its plan"),
        ("", "a run's id or the file of its plan"),
        ("{folder}/bad.json", "is no plan of a run"),
        ("{folder}/other.json", "is no plan of a run"),
    ],
)
def test_what_is_no_plan_is_refused_at_once(tmp_path: Path, follow: Any, said: str) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text(json.dumps({"run_id": "r", "interventions": [{"step": -1}]}))
    follow = follow.format(folder=tmp_path) if isinstance(follow, str) else follow
    with pytest.raises(UserMistake, match="start_run: ") as refusal:
        read_plan(follow, Settings(data_dir=tmp_path))
    assert said in str(refusal.value)


@pytest.mark.parametrize("tolerance", [-1, 1, math.nan, math.inf, "much", True])
def test_a_tolerance_is_a_share(tolerance: Any) -> None:
    with pytest.raises(UserMistake, match="follow_tolerance"):
        refuse_wrong_tolerance(Plan(run_id="r"), tolerance)


def test_a_tolerance_without_a_plan_is_a_slip() -> None:
    with pytest.raises(UserMistake, match=r"follow=\.\.\."):
        refuse_wrong_tolerance(None, 0.1)


def test_a_following_run_says_in_its_log_what_came_of_it(
    governed: Governed, tmp_path: Path, log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pilothouse"):
        followed(governed.plan, tmp_path, log)
    assert "run run-1 is reproduced: " in caplog.text


# ----------------------------------------------------------------------------------------------------- several ranks


def two_ranks(plans: list[Plan], slow: int, patience: float = 20.0) -> list[tuple[Tape, Following]]:
    """Ten steps on two ranks, of which one takes its time at every step."""
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # public, but not in __all__
    saw: list[tuple[Tape, Following]] = []
    threads = []
    for rank, plan in enumerate(plans):
        tape = Tape(rank, 2)
        saw.append((tape, Following(tape, plan)))
        threads.append(threading.Thread(target=_be, args=(*saw[-1], store, 0.03 if rank == slow else 0.0, patience)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return saw


def _be(tape: Tape, following: Following, store: Any, seconds: float, patience: float) -> None:
    ballots = StoreBallots(lambda: store, "follow", tape.identity.rank, 2)
    weight = torch.nn.Parameter(torch.zeros(1))
    pilot = Pilot(tape, weight, torch.optim.SGD([weight], lr=0.1), settings=Settings(),
                  links=lambda *_: Links(ballots), following=following)  # fmt: skip
    pilot._steering._agreement._patience = patience  # a test need not wait as long as a training may
    for step in range(10):
        time.sleep(seconds)
        pilot.safe_point(step)
    pilot.close()


HALVED = Plan(run_id="run-1", interventions=(planned(0, 2, ScaleLr(factor=0.5)), planned(0, 3, ScaleLr(factor=0.5))))


@pytest.mark.parametrize("slow", [0, 1])
def test_the_faster_rank_waits_where_something_is_due_and_both_do_it_there(slow: int) -> None:
    for tape, following in two_ranks([HALVED, HALVED], slow):
        assert following.fault == ""
        assert [(said["outcome"], said["step"]) for said in tape.of("intervention_receipt")] == [
            ("applied", 2), ("applied", 3)
        ]  # fmt: skip


def test_ranks_with_different_plans_apply_nothing() -> None:
    other = Plan(run_id="run-1", interventions=(planned(0, 2, ScaleLr(factor=0.9), "of-another-plan"),))
    for tape, following in two_ranks([HALVED, other], slow=-1):
        assert "AnotherPlan" in following.fault
        assert {said["outcome"] for said in tape.of("intervention_receipt")} == {"rejected"}


def test_a_rank_that_has_nothing_due_lets_nobody_apply_alone() -> None:
    later = Plan(run_id="run-1", interventions=(planned(0, 9, ScaleLr(factor=0.9)),))
    (first, _), (second, _) = two_ranks([HALVED, later], slow=-1, patience=2.0)
    for tape in (first, second):
        assert all(said["outcome"] != "applied" for said in tape.of("intervention_receipt"))


def test_a_script_follows_by_one_more_word_without_broker_or_archive(governed: Governed, tmp_path: Path) -> None:
    """`start_run(follow=...)` as a script calls it; what it told waits in the spool."""
    file = tmp_path / "plan.json"
    file.write_text(governed.plan.model_dump_json())
    settings = Settings(kafka="127.0.0.1:9", close_seconds=1.0, data_dir=tmp_path)
    with pilothouse.start_run("again", run_id="again", follow=file, settings=settings) as run:
        training = Training(run, tmp_path / "checkpoints").train()
    assert training.weights() == governed.training.weights()
    assert run._followed is not None
    assert verdict(*run._followed)[0]
