"""The demo's training script: what one rank runs, started by `launch` as torchrun would start it.

Real PyTorch DistributedDataParallel, and all of it in `train`: what Pilothouse adds is the run, the pilot and the calls
of the two. `examples/train.py` shows just that, for a script of your own.

The faults are the plan in the recipe, struck by `producers.faults`; without a plan the two lines that name `faults` do
nothing.
"""

import math
import sys
import time
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ...producers.checkpoints.store import Checkpoints
from ...producers.faults import Injector, read_faults
from ...producers.start import start_run
from .model import GPT, Shape
from .recipe import Recipe
from .text import python_sources


def train(recipe: Recipe) -> None:
    """One rank of one run, inside its process group."""
    rank, shape = dist.get_rank(), Shape(width=recipe.width, layers=recipe.layers, heads=recipe.heads)
    text = python_sources(shape.length)
    model = DistributedDataParallel(GPT(shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    scheduler = LambdaLR(optimizer, lambda step: warmup_and_cosine(step, recipe))
    sampler: DistributedSampler[Tensor] = DistributedSampler(text.training, seed=recipe.seed)
    loader = DataLoader(text.training, batch_size=recipe.batch_size, sampler=sampler, drop_last=True)
    held_out = validation_share(text.validation, recipe.validation_windows)
    faults = Injector(read_faults(recipe.faults))
    checkpoints = Checkpoints(recipe.checkpoints, every=recipe.checkpoint_every)

    with start_run("demo", run_id=recipe.run_id, config=asdict(recipe), model=str(shape)) as run:
        pilot = run.pilot(model, optimizer, scheduler=scheduler, checkpoints=checkpoints)
        for step, drawn in pilot.batches(loader, recipe.steps):
            began = time.monotonic()
            batch = faults.batch(rank, step, pilot.data_position - 1, drawn)
            faults.at("optimizer", rank, step, optimizer, scheduler)

            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            scheduler.step()

            run.log(step, loss=loss, grad_norm=grad_norm, lr=scheduler.get_last_lr()[0], tokens=batch.numel())
            if (step + 1) % recipe.evaluate_every == 0 or step + 1 == recipe.steps:
                with run.evaluating(step):
                    validation_loss = evaluate(model, held_out)
                if rank == 0:
                    run.evaluated(step, loss=validation_loss)
            time.sleep(max(0.0, began + recipe.step_seconds - time.monotonic()))
            pilot.safe_point(step)


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of the next character, in nats. `batch` is (windows, length + 1)."""
    logits = model(batch[:, :-1])
    return cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def warmup_and_cosine(step: int, recipe: Recipe) -> float:
    """The learning rate's factor: up in a line, then down in half a cosine to a tenth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.1 + 0.45 * (1.0 + math.cos(math.pi * min(1.0, done)))


def validation_share(validation: Dataset[Tensor], windows: int) -> Tensor:
    """This rank's windows of the held-out text, spread over all of it."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    total: Any = validation
    places = [round(place) for place in torch.linspace(0, len(total) - 1, windows * world_size).tolist()]
    return torch.stack([validation[place] for place in places[rank::world_size]])


def evaluate(model: nn.Module, held_out: Tensor) -> float:
    """The validation loss: the mean over all ranks' windows, the same number on every rank."""
    model.eval()
    with torch.no_grad():
        total = loss_of(model, held_out)
    dist.all_reduce(total)
    model.train()
    return float(total) / dist.get_world_size()


def main(recipe: Recipe) -> None:
    """One process: from its process group to the end of it."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    dist.init_process_group("gloo")
    try:
        train(recipe)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Recipe.of(sys.argv[1]))
