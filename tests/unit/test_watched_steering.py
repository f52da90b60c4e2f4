"""A loop that is not ours, steered between its optimizer's steps: what is offered, and what is obeyed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pilothouse.events.actions import (
    CheckpointNow,
    Pause,
    Resume,
    Rollback,
    ScaleLr,
    SetClip,
    SetDropout,
    SetWeightDecay,
    SkipBatches,
    Stop,
)
from pilothouse.producers.integrations.torch import watch
from pilothouse.tests.pilot_world import Order, Tape
from pilothouse.tests.watched_tape import WatchedTape, data, functions, loss_of, norm_of, small_model


@pytest.fixture(autouse=True)
def untouched_torch() -> Iterator[None]:
    """Whatever a watch does to PyTorch is gone when it is closed."""
    before = functions()
    yield
    assert functions() == before


class Loop:
    """A steered loop, and what each step of it was made with."""

    def __init__(self, orders: list[Order], own_clip: float | None = None, **steered: Any) -> None:
        self.tape, self.model, self.own_clip = WatchedTape(orders), small_model(dropout=0.5), own_clip
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, weight_decay=0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5, 0.5)
        self.applied: list[float] = []
        self.batches: list[int] = []
        self.watch = watch(
            self.tape, self.model, self.optimizer, scheduler=self.scheduler, **({"steer": True} | steered)
        )
        # After those of the watch: the gradient and the rate that the step really uses.
        self.optimizer.register_step_pre_hook(lambda *_: self.applied.append(norm_of(self.model)))

    def train(self, count: int) -> "Loop":
        batches = data(count)
        with self.watch:
            for number in self.watch.batches(range(count)):
                self.batches.append(number)
                self.optimizer.zero_grad()
                loss_of(self.model, batches[number]).mul(3.0).backward()
                if self.own_clip is not None:
                    nn.utils.clip_grad_norm_(self.model.parameters(), self.own_clip)
                self.optimizer.step()
                self.scheduler.step()
        return self


def test_a_watch_that_may_steer_offers_all_that_an_optimizers_step_allows_and_the_loop_the_rest() -> None:
    loop = Loop([])
    always = ("pause", "resume", "notify", "revert")
    assert set(loop.tape.steerable) == {"scale_lr", "set_lr", "set_clip", "set_weight_decay", "set_dropout", *always}
    loop.train(1)
    assert {"skip_batches", "stop"} <= set(loop.tape.steerable)


def test_only_what_was_named_is_offered() -> None:
    loop = Loop([], steer=("scale_lr",))
    loop.train(1)
    assert loop.tape.steerable == ("scale_lr", "revert")


def test_the_rate_that_is_logged_is_the_one_that_was_stepped_with() -> None:
    loop = Loop([Order(0, ScaleLr(factor=0.5))]).train(5)
    assert loop.tape.outcomes(1) == ["applied"]
    assert loop.tape.column("lr") == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05])


@pytest.mark.parametrize("own", [None, 5.0])
def test_the_clip_takes_the_place_of_the_scripts_own_or_is_made_where_it_has_none(own: float | None) -> None:
    loop = Loop([Order(0, SetClip(value=0.25))], own_clip=own).train(8)
    assert loop.tape.receipt("i-1")["before"] == ({} if own is None else {"clip": 5.0})
    at = loop.tape.receipt("i-1")["step"]
    assert loop.applied[at + 1 :] == pytest.approx([0.25] * (len(loop.applied) - at - 1), rel=1e-3)
    assert min(loop.applied[: at + 1]) > 0.3
    assert min(loop.tape.column("grad_norm")) > 0.25


def test_weight_decay_and_dropout_are_found_and_set() -> None:
    loop = Loop([Order(0, SetWeightDecay(value=0.2)), Order(5, SetDropout(value=0.1))]).train(12)
    assert loop.tape.outcomes(2) == ["applied", "applied"]
    assert loop.tape.receipt("i-1")["before"] == {"weight_decay": 0.01}
    assert (loop.optimizer.param_groups[0]["weight_decay"], loop.model[1].p) == (0.2, 0.1)  # type: ignore[index]  # a Sequential


def test_skipped_batches_and_a_stop_are_the_loops_part() -> None:
    loop = Loop([Order(0, SkipBatches(count=3)), Order(8, Stop())]).train(50)
    assert loop.tape.outcomes(2) == ["applied", "applied"]
    at = loop.tape.receipt("i-1")["step"]
    assert loop.batches[at : at + 2] == [at, at + 4]
    assert loop.tape.of("data_window_skipped")[0]["first_batch"] == at + 1
    assert loop.tape.steps[-1] == loop.tape.receipt("i-2")["step"]


def test_a_pause_holds_the_loop_until_it_is_resumed() -> None:
    loop = Loop([Order(2, Pause(max_seconds=60.0)), Order(2, Resume())]).train(20)
    assert loop.tape.outcomes(2) == ["applied", "applied"]
    assert loop.tape.stages == ["paused", "train"]
    assert loop.tape.steps == list(range(20))


def test_batches_left_to_skip_at_the_end_of_an_epoch_are_skipped_in_the_next() -> None:
    loop = Loop([Order(2, SkipBatches(count=6))])
    batches = data(8)
    with loop.watch:
        for _ in range(2):
            for number in loop.watch.batches(range(8)):
                loop.batches.append(number)
                loss_of(loop.model, batches[number]).backward()
                loop.optimizer.step()
    windows = [(told["first_batch"], told["last_batch"]) for told in loop.tape.of("data_window_skipped")]
    at = loop.tape.receipt("i-1")["step"]
    assert windows == [(at + 1, 7), (8, at + 6)]
    assert loop.batches == [*range(at + 1), *range(at - 1, 8)]


def test_a_rollback_inside_of_a_step_leaves_model_and_schedule_as_they_were_after_that_step(tmp_path: Path) -> None:
    def back(tape: Tape) -> Rollback:
        return Rollback(checkpoint=tape.saved()[0], lr_factor=1.0)

    loop = Loop([Order(1, CheckpointNow()), Order(9, back)], checkpoints=tmp_path)
    after: dict[int, tuple[list[Tensor], Any]] = {}
    batches = data(20)
    with loop.watch:
        for number in loop.watch.batches(range(14)):
            loop.optimizer.zero_grad()
            loss_of(loop.model, batches[number]).backward()
            loop.optimizer.step()
            loop.scheduler.step()
            done = loop.watch.step - 1
            state = ([p.detach().clone() for p in loop.model.parameters()], loop.scheduler.state_dict())
            before = after.setdefault(done, state)
            if before is not state:
                break
    assert loop.tape.outcomes(2) == ["applied", "applied"]
    saved = loop.tape.saved()[0].step
    assert done == saved
    assert all(torch.equal(*pair) for pair in zip(state[0], before[0], strict=True))
    assert state[1]["last_epoch"] == before[1]["last_epoch"]
