"""A training script that knows nothing of Pilothouse, to be watched all the same:

    pilothouse run -- python examples/plain.py
    pilothouse run --steer lr,clip -- torchrun --nproc-per-node 2 examples/plain.py

Loss, gradient norm, learning rate and step time are published by `pilothouse run`, found in the steps of the optimizer.
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS, BATCH_SIZE = 300, 64


def train(rank: int, ranks: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
    model: nn.Module = DistributedDataParallel(network) if ranks > 1 else network
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    data = torch.Generator().manual_seed(rank)
    for step in range(STEPS):
        batch = torch.randn(BATCH_SIZE, 16, generator=data)
        loss = (model(batch) - batch.sin().sum(dim=1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if rank == 0 and step % 100 == 99:
            print(f"step {step}  loss {loss.item():.3f}")


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
