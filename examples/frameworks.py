"""The same tiny training under Hugging Face, Lightning or Accelerate, with one line of Pilothouse in each:

    pilothouse up                                   # in another shell: a stack to talk to
    python examples/frameworks.py huggingface
    python examples/frameworks.py lightning
    python examples/frameworks.py accelerate

The line is marked (1). `steer=True` lets a policy act; without it the run is only watched.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import pilothouse
from pilothouse.producers.integrations import accelerate as accelerated
from pilothouse.producers.integrations import huggingface, lightning

FOLDER = "checkpoints/frameworks"


class Sines(Dataset[dict[str, Tensor]]):
    """Rows of numbers, and the sum of their sines."""

    def __init__(self, count: int = 800) -> None:
        self._rows = torch.randn(count, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self._rows[index]
        return {"inputs": row, "labels": row.sin().sum(dim=0, keepdim=True)}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.1), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.layers(inputs) - labels).square().mean()}


def with_huggingface() -> None:
    from transformers import Trainer, TrainingArguments

    watching = huggingface.callback(name="sines", steer=True, checkpoints=FOLDER)  # (1)
    arguments = TrainingArguments(
        output_dir=FOLDER, report_to="none", save_strategy="no", remove_unused_columns=False, use_cpu=True
    )
    Trainer(model=Model(), args=arguments, train_dataset=Sines(), callbacks=[watching]).train()


def with_lightning() -> None:
    import lightning.pytorch as pl

    class Module(pl.LightningModule):  # type: ignore[misc]  # the framework's types are not followed here
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: dict[str, Tensor]) -> Any:
            return self.model(**batch)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=3e-3)

    watching = lightning.callback(name="sines", steer=True, checkpoints=FOLDER)  # (1)
    trainer = pl.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, callbacks=[watching])
    trainer.fit(Module(), DataLoader(Sines(), batch_size=8))


def with_accelerate() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    parts = Model(), DataLoader(Sines(), batch_size=8)
    optimizer = torch.optim.AdamW(parts[0].parameters(), lr=3e-3)
    model, loader, optimizer = accelerator.prepare(*parts, optimizer)
    with (
        pilothouse.start_run("sines") as run,
        accelerated.watch(run, accelerator, model, optimizer, steer=True, checkpoints=FOLDER) as watched,  # (1)
    ):
        for batch in watched.batches(loader):
            optimizer.zero_grad()
            accelerator.backward(model(**batch)["loss"])
            optimizer.step()


if __name__ == "__main__":
    chosen = {"huggingface": with_huggingface, "lightning": with_lightning, "accelerate": with_accelerate}
    chosen[sys.argv[1] if len(sys.argv) > 1 else "huggingface"]()
