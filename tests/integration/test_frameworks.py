"""The adapters against the real frameworks: one tiny model each, watched and steered from their own loops."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pilothouse.events.actions import (
    Action,
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
from pilothouse.events.codec import decode
from pilothouse.events.telemetry import RunEnded, RunStarted, StageChanged, StepBatch
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.producers.integrations import accelerate as accelerated
from pilothouse.producers.integrations import huggingface, lightning
from pilothouse.producers.integrations.adapter import Adapter
from pilothouse.tests.pilot_world import Order, Tape
from pilothouse.tests.run_builder import ALL_ACTIONS
from pilothouse.tests.watched_tape import WatchedTape

# What the frameworks and what they import warn of is theirs.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

STEPS, ACCUMULATED = 60, 2


def back(tape: Tape) -> Rollback:
    return Rollback(checkpoint=tape.saved()[0], lr_factor=0.5)


ACTIONS: list[Action | Callable[[Tape], Action]] = [
    ScaleLr(factor=0.5),
    SetClip(value=0.125),
    SetWeightDecay(value=0.2),
    SetDropout(value=0.3),
    CheckpointNow(),
    SkipBatches(count=3),
    Pause(max_seconds=60.0),
    Resume(),
    back,
    Stop(),
]


def ordered() -> list[Order]:
    """Every action once, as soon as the one before it is done."""
    return [Order(0, action) for action in ACTIONS]


class Numbers(Dataset[dict[str, Tensor]]):
    """So many rows, each with its own number."""

    def __init__(self, count: int = 4 * STEPS * ACCUMULATED) -> None:
        self.rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"inputs": self.rows[number], "number": torch.tensor(number)}


class Model(nn.Module):
    """A loss for a batch; remembers which rows it was trained on, and each loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 1))
        self.seen: list[int] = []
        self.losses: list[float] = []

    def forward(self, inputs: Tensor, number: Tensor) -> dict[str, Tensor]:
        loss = 10.0 * (self.layers(inputs) - 1.0).square().mean()
        if self.training:
            self.seen.append(int(number[0]))
            self.losses.append(loss.item())
        return {"loss": loss}


class Trained:
    """One training that is over."""

    def __init__(self, tape: WatchedTape, model: Model, optimizer: Any) -> None:
        self.tape, self.model, self.optimizer = tape, model, optimizer


def huggingface_trainer(folder: Path, watching: Any, model: Model, **more: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": ACCUMULATED,
        "num_train_epochs": 1,
        "max_grad_norm": 5.0,
        "weight_decay": 0.01,
        "learning_rate": 0.01,
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "eval_strategy": "epoch",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["number"],
        "seed": 1,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(**(arguments | more)),
        train_dataset=Numbers(),
        eval_dataset=Numbers(4),
        callbacks=[watching],
    )


def train_with_huggingface(folder: Path, tape: WatchedTape, steer: bool) -> Trained:
    model = Model()
    watching = huggingface.callback(tape, steer=steer, checkpoints=folder / "pilot" if steer else None)
    trainer = huggingface_trainer(folder, watching, model)
    trainer.train()
    return Trained(tape, model, trainer.optimizer)


def train_with_lightning(folder: Path, tape: WatchedTape, steer: bool) -> Trained:
    import lightning.pytorch as pl

    class Module(pl.LightningModule):  # type: ignore[misc]  # the framework ships no types that we follow
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: dict[str, Tensor]) -> Any:
            return self.model(**batch)["loss"]

        def validation_step(self, batch: dict[str, Tensor]) -> None:
            self.log("val_loss", self.model(**batch)["loss"])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.01)
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)]

    module = Module()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=ACCUMULATED,
        gradient_clip_val=5.0,
        callbacks=[lightning.callback(tape, steer=steer, checkpoints=folder / "pilot" if steer else None)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(Numbers(), batch_size=4), DataLoader(Numbers(4), batch_size=4))
    return Trained(tape, module.model, trainer.optimizers[0])


def train_with_accelerate(folder: Path, tape: WatchedTape, steer: bool) -> Trained:
    from accelerate import Accelerator

    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=ACCUMULATED, log_with=accelerated.tracker(tape), project_dir=folder
    )
    accelerator.init_trackers("test")
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    loader: Any = DataLoader(Numbers(), batch_size=4)
    wrapped, prepared, scheduler, loader = accelerator.prepare(model, optimizer, scheduler, loader)
    wishes: Any = {"checkpoints": folder / "pilot", "scheduler": scheduler} if steer else {}
    with accelerated.watch(tape, accelerator, wrapped, prepared, steer=steer, **wishes) as watched:
        for batch in watched.batches(loader):
            with accelerator.accumulate(wrapped):
                accelerator.backward(wrapped(**batch)["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(wrapped.parameters(), 5.0)
                prepared.step()
                scheduler.step()
                prepared.zero_grad()
        wrapped.eval()
        tape.evaluated(watched.step - 1, loss=0.0)
        wrapped.train()
    accelerator.log({"extra": 1.0}, step=tape.last_step)
    return Trained(tape, model, optimizer)


Train = Callable[[Path, WatchedTape, bool], Trained]
FRAMEWORKS: dict[str, Train] = {
    "huggingface": train_with_huggingface,
    "lightning": train_with_lightning,
    "accelerate": train_with_accelerate,
}


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Train:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return FRAMEWORKS[str(request.param)]


@pytest.fixture(scope="module")
def observed(framework: Train, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return framework(tmp_path_factory.mktemp("observed"), WatchedTape(), False)


@pytest.fixture(scope="module")
def steered(framework: Train, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return framework(tmp_path_factory.mktemp("steered"), WatchedTape(ordered()), True)


def test_every_step_is_seen_with_its_loss_norm_and_rate(observed: Trained) -> None:
    tape, losses = observed.tape, observed.model.losses
    means = [sum(pair) / ACCUMULATED for pair in zip(losses[::2], losses[1::2], strict=True)]
    assert tape.column("loss") == pytest.approx(means, rel=1e-5)
    assert [step for step, row in tape.rows if "loss" in row] == list(range(STEPS))
    assert len(tape.column("grad_norm")) == STEPS
    assert set(tape.column("lr")) == {0.01}
    assert tape.steerable == ()


def test_what_the_framework_evaluates_is_seen(observed: Trained) -> None:
    (step, metrics), *_ = observed.tape.evaluations
    assert step == STEPS - 1
    assert "loss" in metrics
    assert observed.tape.stages == ["evaluate", "train"]


def test_what_a_step_is_made_of_in_time_is_seen_where_it_is_only_observed(observed: Trained) -> None:
    waits, computes = observed.tape.column("data_wait_s"), observed.tape.column("compute_s")
    assert len(waits) == len(computes) == STEPS
    assert min(waits) > 0.0
    between_steps = sum(observed.tape.column("step_time_s"))
    assert sum(waits[1:] + computes[1:]) == pytest.approx(between_steps, rel=0.1)


def test_the_whole_list_is_offered_and_each_is_carried_out(steered: Trained) -> None:
    assert set(steered.tape.steerable) == set(ALL_ACTIONS) - {"set_loss_weight", "set_batch_size", "evict_rank"}, (
        "knobs to be named"
    )
    assert steered.tape.outcomes(len(ACTIONS)) == ["applied"] * len(ACTIONS)


def test_the_optimizer_and_the_model_are_what_was_ordered(steered: Trained) -> None:
    assert steered.optimizer.param_groups[0]["weight_decay"] == 0.2
    assert steered.model.layers[1].p == 0.3
    assert steered.tape.receipt("i-2")["before"] == {"clip": 5.0}
    assert steered.tape.column("lr")[-1] == pytest.approx(0.01 * 0.5 * 0.5)


def test_skipped_batches_are_never_trained_on_and_all_others_are(steered: Trained) -> None:
    (window,) = steered.tape.of("data_window_skipped")
    assert window["last_batch"] - window["first_batch"] == 2
    positions = [row // 4 for row in steered.model.seen]
    skipped = range(window["first_batch"], window["last_batch"] + 1)
    assert positions == [position for position in range(positions[-1] + 1) if position not in skipped]


def test_a_pause_holds_the_loop_until_it_is_resumed(steered: Trained) -> None:
    stages = steered.tape.stages
    assert stages[stages.index("paused") + 1] == "train"
    assert steered.tape.receipt("i-7")["step"] == steered.tape.receipt("i-8")["step"]
    assert 0.0 < steered.tape.receipt("i-8")["after"]["paused_seconds"] < 30.0


def test_after_the_rollback_steps_go_back_and_the_training_ends_where_it_was_told_to(steered: Trained) -> None:
    tape = steered.tape
    to = tape.saved()[0].step
    at = tape.receipt("i-9")["step"]
    steps = [step for step, row in tape.rows if "loss" in row]
    assert steps[: at + 2] == [*range(at + 1), to + 1]
    assert steps[-1] == tape.receipt("i-10")["step"]
    assert len(steps) < STEPS
    assert tape.outcome == "stopped"


class Hungry(Model):
    """Too large for batches of four."""

    def forward(self, inputs: Tensor, number: Tensor) -> dict[str, Tensor]:
        if len(inputs) == 4 and len(self.seen) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 batch")
        return super().forward(inputs, number)


def test_a_training_without_a_run_opens_one_of_its_own_and_one_that_ran_out_of_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hugging Face begins again, with half of the batch, in the same call of `train`."""
    monkeypatch.setenv("PILOTHOUSE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PILOTHOUSE_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("PILOTHOUSE_CLOSE_SECONDS", "0.1")
    monkeypatch.setenv("PILOTHOUSE_NO_SUCH_SETTING", "1")  # of which no training may die
    more = {"auto_find_batch_size": True, "max_steps": 5, "eval_strategy": "no"}
    huggingface_trainer(tmp_path, huggingface.callback(name="mine"), Hungry(), **more).train()
    spooled = (tmp_path / "data" / "spool").glob("mine-*/*")
    told = [[decode(record.headers, record.body) for record in read_folder(folder)] for folder in spooled]
    kinds = [[type(fact) for fact in facts if not isinstance(fact, StageChanged)] for facts in told]
    assert [(of[0], StepBatch in of, of[-1]) for of in kinds] == [(RunStarted, True, RunEnded)] * 2
    ends = [fact for facts in told for fact in facts if isinstance(fact, RunEnded)]
    assert [end.outcome for end in sorted(ends, key=lambda end: end.at)] == ["out_of_memory", "completed"]


def test_a_run_that_was_given_to_two_trainings_tells_the_second_as_an_attempt() -> None:
    """Its steps are counted from 0 again, which within one attempt nobody could judge."""
    tape, model = WatchedTape(), nn.Linear(1, 1)
    adapter = Adapter(tape)
    for _ in range(2):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        adapter.begin({"model": model, "optimizers": [optimizer], "scheduler": [], "scaler": None}, False, "", {})
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        adapter.finish()
    (attempt,) = tape.of("attempt")
    assert (attempt["reason"], attempt["first_step"], tape.steps) == ("restart", 0, [0, 0])


def test_a_training_that_cannot_be_watched_is_made_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    adapter = Adapter(name="")  # without a name of its own either
    with caplog.at_level(logging.ERROR):
        adapter.begin({"model": model, "optimizers": [optimizer], "scheduler": [], "scaler": None}, False, "", {})
    (record,) = caplog.records
    assert record.getMessage().startswith("pilothouse: this training is not watched: ")
    assert adapter.watch is None
    adapter.evaluating(True)
    adapter.evaluated({"val_loss": 1.0}, "val_")
    adapter.finish()
