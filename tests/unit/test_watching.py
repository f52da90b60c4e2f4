"""A loop that is not ours, as its optimizer's steps tell it: what is logged."""

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pilothouse.producers.attach.options import Options
from pilothouse.producers.attach.session import Session
from pilothouse.producers.integrations import observing
from pilothouse.producers.integrations.loop_time import LoopTime
from pilothouse.producers.integrations.torch import watch
from pilothouse.tests.accelerators import Asked, OnAccelerator
from pilothouse.tests.watched_tape import WatchedTape, data, functions, loss_of, norm_of, small_model


@pytest.fixture(autouse=True)
def untouched_torch() -> Iterator[None]:
    """Whatever a watch does to PyTorch is gone when it is closed."""
    before = functions()
    yield
    assert functions() == before


def test_each_step_is_logged_with_what_the_script_never_said() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    truth = []
    with watch(tape, model, optimizer):
        for batch in data(4):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            truth.append((loss.item(), norm_of(model), optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
    assert tape.steps == [0, 1, 2, 3]
    seen = zip(tape.column("loss"), tape.column("grad_norm"), tape.column("lr"), strict=True)
    assert list(seen) == [pytest.approx(row) for row in truth]
    assert len(tape.column("step_time_s")) == 3


def test_after_the_watch_nothing_is_logged_any_more() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(tape, model, optimizer):
        pass
    loss_of(model, data(1)[0]).backward()
    optimizer.step()
    assert tape.rows == []


def test_accumulated_gradients_are_one_step_whose_loss_is_the_mean_that_the_script_made_of_them() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    with watch(tape, model, optimizer):
        for number, batch in enumerate(data(6)):
            loss = loss_of(model, batch)
            (loss / 3).backward()
            losses.append(loss.item())
            if number % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    assert tape.column("loss") == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])
    assert tape.column("micro_batches") == [3, 3]


def test_the_norm_is_the_one_before_the_scripts_own_clip_and_no_second_pass_is_made() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(tape, model, optimizer, norms=False):  # so what is logged can only be the script's
        loss_of(model, data(1)[0]).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    assert tape.column("grad_norm") == [float(norm)]


def test_the_norm_of_a_part_of_the_gradients_is_not_taken_for_the_whole() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(tape, model, optimizer):
        loss_of(model, data(1)[0]).backward()
        nn.utils.clip_grad_norm_([next(model.parameters())], 1e9)
        whole = norm_of(model)
        optimizer.step()
    assert tape.column("grad_norm") == pytest.approx([whole])


def test_gradients_that_were_thrown_away_count_for_no_loss() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(tape, model, optimizer):
        (loss_of(model, data(1)[0]) * float("nan")).backward()
        optimizer.zero_grad()  # the script saw it, and made no step of it
        loss = loss_of(model, data(1)[0])
        loss.backward()
        optimizer.step()
    assert tape.rows[0][1]["loss"] == pytest.approx(loss.item())
    assert tape.column("skipped_steps") == [1]


def test_two_optimizers_have_losses_and_rates_of_their_own_and_the_first_counts_the_steps() -> None:
    tape, critic, maker = WatchedTape(), small_model(), small_model()
    first, second = torch.optim.SGD(critic.parameters(), lr=0.1), torch.optim.Adam(maker.parameters(), lr=0.2)
    told = []
    with watch(tape, critic, [first, second]):
        for batch in data(3):
            for model, optimizer in ((critic, first), (maker, second)):
                optimizer.zero_grad()
                losses = loss_of(model, batch), loss_of(model, -batch)
                for loss in losses:
                    loss.backward()
                told.append(sum(loss.item() for loss in losses))
                optimizer.step()
    assert tape.steps == [0, 0, 1, 1, 2, 2]
    assert tape.column("loss") == pytest.approx(told[::2])
    assert tape.column("loss_1") == pytest.approx(told[1::2])
    assert (set(tape.column("lr")), set(tape.column("lr_1"))) == ({0.1}, {0.2})


def test_a_gradient_scaler_changes_no_number_and_a_step_it_skipped_is_no_step() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    told = []
    with watch(tape, model, optimizer, scaler=scaler):
        for number, batch in enumerate(data(4)):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            scaled = scaler.scale(loss)
            (scaled / 2 if number == 3 else scaled).backward()
            if number == 1:
                next(iter(model.parameters())).grad.fill_(float("inf"))  # type: ignore[union-attr]
            else:
                told.append((loss.item() / (2 if number == 3 else 1), norm_of(model) / scaler.get_scale()))
            scaler.step(optimizer)
            scaler.update()
    assert tape.steps == [0, 1, 2]
    seen = list(zip(tape.column("loss"), tape.column("grad_norm"), strict=True))
    assert seen == [pytest.approx(row, rel=1e-4) for row in told]
    assert tape.column("skipped_steps") == [1, 1]


@pytest.mark.parametrize("keyword", [False, True])
def test_a_closure_is_a_step_like_any_other(keyword: bool) -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (batch,) = data(1)
    told = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        told.append((loss.item(), norm_of(model)))
        return loss

    with watch(tape, model, optimizer):
        for _ in range(2):
            answer = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
            assert answer.item() == told[-1][0]
    assert list(zip(tape.column("loss"), tape.column("grad_norm"), strict=True)) == [pytest.approx(row) for row in told]


def test_of_a_closure_that_is_called_many_times_the_first_call_is_the_step() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer: Any = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    (batch,) = data(1)
    told = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        told.append(loss.item())
        return loss

    with watch(tape, model, optimizer):
        optimizer.step(closure)
    assert len(told) > 1
    assert tape.column("loss") == pytest.approx(told[:1])


class Wrapping(torch.optim.Optimizer):
    """As Lookahead or a sharding optimizer: its step is another's."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__(inner.param_groups, inner.defaults)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        if closure is not None:
            raise RuntimeError("no closures")


def test_a_step_inside_of_a_step_is_one() -> None:
    tape, model = WatchedTape(), small_model()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = Wrapping(inner)
    with watch(tape, model, [outer, inner]):
        for batch in data(2):
            loss_of(model, batch).backward()
            outer.step()
        with pytest.raises(RuntimeError, match="no closures"):
            outer.step(lambda: None)
        inner.step()  # the outer one raised: this is a step of its own
    assert tape.steps == [0, 1, 1]
    assert "lr_1" in tape.rows[-1][1]


def test_a_compiled_model_is_watched_like_any_other() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend="eager")
    with watch(tape, model, optimizer):
        for batch in data(2):
            optimizer.zero_grad()
            loss = loss_of(compiled, batch)
            loss.backward()
            optimizer.step()
    assert tape.steps == [0, 1]
    assert tape.column("loss")[-1] == pytest.approx(loss.item())


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # PyTorch's own, when it compiles
def test_a_step_that_was_compiled_is_made_and_not_seen_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    before = next(model.parameters()).detach().clone()
    with caplog.at_level(logging.WARNING, "pilothouse"), watch(tape, model, optimizer):
        for batch in data(2):
            loss_of(model, batch).backward()
            step()
    assert tape.rows == []
    assert not torch.equal(next(model.parameters()), before)
    assert "backward was called 2 times, but no optimizer" in caplog.records[-1].message


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_waited_computed_and_spent_elsewhere_adds_up_to_the_time_between_two_steps() -> None:
    clock, told, model = Clock(), list[bool](), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    spent = LoopTime(told.append, lambda _: None, clock)
    rows: list[dict[str, Any]] = [{}, {}]
    spent.waited(99.0, 100.0)
    clock.now += 2
    spent.put(optimizer, 0, rows[0])
    spent.waited(102.0, 105.0)
    clock.now += 3 + 4
    spent.mode_set(model, False)
    spent.waited(109.0, 110.0)  # the evaluation's own data
    clock.now += 50
    spent.mode_set(model, True)
    with spent.away():
        clock.now += 200
    clock.now += 6
    spent.put(optimizer, 1, rows[1])
    assert rows == [{"data_wait_s": 1.0, "compute_s": 2.0}, {"data_wait_s": 3.0, "compute_s": 10.0}]
    assert told == [True, False]


def test_a_model_that_is_asked_at_every_step_a_part_of_it_or_another_is_no_evaluation() -> None:
    clock, told, model = Clock(), list[bool](), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    spent = LoopTime(told.append, lambda _: None, clock)
    spent.mode_set(model, False)  # before training: it is not known whose it is
    spent.put(optimizer, 0, {})
    for other in (model[0], small_model()):  # type: ignore[index]  # a Sequential
        spent.mode_set(other, False)
    assert told == []
    wrapping = nn.Sequential(model)
    for step in range(1, 4):
        spent.mode_set(wrapping, False)
        clock.now += 0.1
        spent.put(optimizer, step, {})  # a step ends it, whatever the mode
    assert told == [True, False]
    clock.now += 2.0
    thread = threading.Thread(target=spent.mode_set, args=(model, False))
    thread.start()
    thread.join()
    assert told == [True, False]


def test_a_loop_that_evaluates_says_so_by_its_models_own_eval_and_train() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader: Any = DataLoader(data(4), batch_size=None)  # type: ignore[arg-type]  # a list is a data set
    with watch(tape, model, optimizer) as watched:
        for batches in (loader, watched.batches(loader), watched.batches(data(4))):
            for batch in batches:
                loss_of(model, batch).backward()
                optimizer.step()
            assert tape.stages == []
        model.eval()
        assert tape.stages == ["evaluate"]
        model.train()
    assert tape.stages == ["evaluate", "train"]
    assert len(tape.column("data_wait_s")) == len(tape.column("compute_s")) == 12


def test_an_unchanged_script_whose_optimizers_never_step_is_told_what_was_seen() -> None:
    session = Session(Options(root=os.getpid()))
    assert session.account() == "nothing was published: no optimizer of torch.optim stepped in the script"
    loss_of(small_model(), data(1)[0]).backward()
    assert "nothing was published: backward was called 1 times, but no optimizer of torch.optim" in session.account()
    session.watch.close()


def test_a_fault_of_ours_ends_the_watch_and_not_the_training(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(WatchedTape):
        def log(self, step: int, /, **metrics: Any) -> None:  # noqa: ARG002  # a shape
            raise OSError("no")

    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    with caplog.at_level(logging.ERROR), watch(Broken(), model, optimizer):
        for batch in data(3):
            loss_of(model, batch).backward()
            optimizer.step()
    assert [record.message for record in caplog.records] == [
        "pilothouse: watching is over after a fault of its own; training goes on"
    ]
    assert any(not torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))


def test_what_is_differentiated_by_its_edge_in_the_graph_is_a_step_without_a_loss() -> None:
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    edge = torch.autograd.graph.get_gradient_edge
    with watch(tape, model, optimizer):
        for several in (False, True):
            root = edge(loss_of(model, data(1)[0]))
            torch.autograd.backward((root,) if several else root)
            optimizer.step()
    assert [sorted(row) for _, row in tape.rows] == [["grad_norm", "lr"], ["grad_norm", "lr", "step_time_s"]]


@pytest.mark.parametrize("heard", ["differentiated", "normed", "clip_at", "dropped"])
def test_a_fault_in_what_we_hear_never_reaches_the_call_of_the_script(
    heard: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(*_: Any) -> None:
        raise LookupError(heard)

    monkeypatch.setattr(observing.StepObserver, heard, stumble)
    tape, model = WatchedTape(), small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with caplog.at_level(logging.ERROR), watch(tape, model, optimizer):
        loss_of(model, data(1)[0]).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        assert norm > 0.1
        assert norm_of(model) == pytest.approx(1e-3, rel=1e-2)
        optimizer.zero_grad()
        loss_of(model, data(1)[0]).backward()
        optimizer.step()
    assert tape.rows == []
    (record,) = caplog.records
    assert record.message == "pilothouse: watching is over after a fault of its own; training goes on"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_losses_on_two_devices_are_summed_on_one() -> None:
    asked: Asked = []
    gathered = observing.StepObserver(lambda *_: None, lambda _: None)
    for device, value in (("xla:0", 1.0), ("xla:1", 2.0)):
        gathered.differentiated(OnAccelerator(torch.tensor(value), asked, device))
    gathered.differentiated(torch.tensor(4.0))
    total = gathered._heard.loss
    assert (str(total.device), total.held.item()) == ("xla:0", 7.0)


def test_a_norm_to_clip_at_that_lies_on_a_device_is_not_waited_for() -> None:
    asked: Asked = []
    gathered = observing.StepObserver(lambda *_: None, lambda _: None)
    limit = OnAccelerator(torch.tensor(0.5), asked)
    assert gathered.clip_at(limit) is limit
    assert gathered.clip_knob().get() is None  # type: ignore[misc]  # a clip has a getter
    gathered.clip_knob().set(0.25)
    assert gathered.clip_at(limit) == 0.25
    assert gathered.clip_at(torch.tensor(2.0)) == 0.25
    assert gathered.own_clip == 2.0
    assert asked == []
