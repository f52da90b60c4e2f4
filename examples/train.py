"""A whole training script under Pilothouse, to copy. On one process, or on as many as you like:

    pilothouse up                                   # in another shell: a stack to talk to
    python examples/train.py
    torchrun --nproc-per-node 4 examples/train.py

It trains a small model to guess the next character of one of Python's own sources. What Pilothouse adds is marked (1)
to (6). Without a stack those lines cost microseconds, what was logged is kept on disk and sent later, and training goes
on as if they were not there.
"""

import os
import pydoc
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import pilothouse

CONTEXT, VOCABULARY, STEPS, BATCH_SIZE = 16, 256, 400, 64


class Characters(Dataset[Tensor]):
    """Every stretch of CONTEXT + 1 characters of a file."""

    def __init__(self, file: Path) -> None:
        text = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8).long()
        self._stretches = text.unfold(0, CONTEXT + 1, 1)

    def __len__(self) -> int:
        return len(self._stretches)

    def __getitem__(self, index: int) -> Tensor:
        return self._stretches[index]


def model_of(width: int = 32) -> nn.Module:
    hidden = nn.Sequential(nn.Linear(width * CONTEXT, 256), nn.GELU(), nn.Linear(256, VOCABULARY))
    return nn.Sequential(nn.Embedding(VOCABULARY, width), nn.Flatten(), hidden)


def train(rank: int, ranks: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(model_of()) if ranks > 1 else model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    data = Characters(Path(pydoc.__file__))
    # A sampler with a seed gives the same batches in the same order after a restart, which goes on where it stopped.
    sampler: DistributedSampler[Tensor] = DistributedSampler(data, num_replicas=ranks, rank=rank, seed=0)
    loader = DataLoader(data, batch_size=BATCH_SIZE, sampler=sampler, drop_last=True)

    # (1) A run: everything logged inside belongs to it. Rank, world size and git commit are found without being told.
    with pilothouse.start_run("characters", config={"batch_size": BATCH_SIZE, "steps": STEPS}) as run:
        # (2) A pilot: what may be steered. Leave out what must not be; without a pilot the run is watched only.
        knobs = {"clip": 1.0}
        pilot = run.pilot(model, optimizer, scheduler=scheduler, knobs=knobs, checkpoints="checkpoints/characters")
        # (3) The loop's batches: a rollback, skipped data and a stop take effect here. Steps may go back, data never.
        #     After a restart, `pilot.restore_latest()` before this line goes on from the newest checkpoint.
        for step, batch in pilot.batches(loader, STEPS):
            optimizer.zero_grad()
            loss = cross_entropy(model(batch[:, :-1]), batch[:, -1])
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), pilot.knob("clip") or 1.0)
            optimizer.step()
            scheduler.step()

            # (4) Telemetry: any number, NaN too. Only appends; a thread sends it.
            run.log(step, loss=loss, grad_norm=grad_norm, lr=scheduler.get_last_lr()[0])
            # (5) A checkpoint to go back to. (`pilothouse.Checkpoints(folder, every=50)` saves by itself.)
            if step % 50 == 49:
                pilot.checkpoint(step)
            # (6) Between two steps, on every rank: what was decided meanwhile is applied, by all at the same step.
            pilot.safe_point(step)
            if rank == 0 and step % 50 == 49:
                print(f"{run.identity.run_id}  step {step}  loss {loss.item():.3f}")


def main() -> None:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        train(rank=0, ranks=1)
        return
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        train(dist.get_rank(), ranks)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
