"""One rank of a model that `fully_shard` has spread: `torchrun ... tests/sharded_ranks.py FOLDER`. Writes what it saw
to `FOLDER/rank-N.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from pilothouse.events.actions import CheckpointNow, Rollback, SetClip, Stop
from pilothouse.producers.ballots import find_ballots
from pilothouse.producers.integrations.torch import watch
from pilothouse.producers.pilot import Pilot
from pilothouse.settings import Settings
from pilothouse.tests.pilot_world import Order, Tape, links_of
from pilothouse.tests.watched_tape import WatchedTape

HANGS_SECONDS = 90.0


def layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


class Sharded(WatchedTape):
    """Its pilots agree through the process group."""

    def __init__(self, orders: list[Order]) -> None:
        super().__init__(orders)
        self.identity = self.identity._replace(rank=dist.get_rank(), world_size=dist.get_world_size())

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> Pilot:
        rank, world = dist.get_rank(), dist.get_world_size()
        links = links_of(self.script if rank == 0 else None, find_ballots("sharded", rank, world))
        self.pilots.append(Pilot(self, model, optimizer, settings=Settings(), links=links, **steered))
        return self.pilots[-1]


def shards(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[float]]:
    """This rank's part of the weights and moments."""
    tensors = [*model.parameters(), *(state["exp_avg"] for state in optimizer.state.values())]
    return [tensor.detach().to_local().flatten().tolist() for tensor in tensors]


def back(tape: Tape) -> Rollback:
    return Rollback(checkpoint=tape.saved()[0])


def main(folder: Path) -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = layers()
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    tape = Sharded([Order(2, CheckpointNow()), Order(9, SetClip(value=0.01)), Order(16, back), Order(10, Stop())])
    after: list[tuple[int, list[list[float]]]] = []
    norms = []
    with watch(tape, model, optimizer, steer=True, checkpoints=folder / "checkpoints") as watched:
        for number in watched.batches(range(200)):
            torch.manual_seed(number)
            optimizer.zero_grad()
            (model(torch.randn(8, 4)) - 1.0).square().mean().backward()
            norms.append(float(nn.utils.get_total_norm([p.grad for p in model.parameters()]).full_tensor()))  # type: ignore[misc,attr-defined]
            optimizer.step()
            after.append((watched.step - 1, shards(model, optimizer)))
    told = {"receipts": tape.of("intervention_receipt"), "saved": [ref.model_dump() for ref in tape.saved()]}
    for pilot in tape.pilots:
        pilot.close()
    flat = Pilot(
        Sharded([]),
        FullyShardedDataParallel(nn.Linear(2, 2), device_id=torch.device("cpu")),
        optimizer,
        settings=Settings(),
        checkpoints=folder / "flat",
        links=links_of(None),
    )
    saw = told | {"rows": tape.rows, "after": after, "norms": norms, "flat": flat.steers}
    (folder / f"rank-{dist.get_rank()}.json").write_text(json.dumps(saw))


if __name__ == "__main__":
    import faulthandler

    faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    main(Path(sys.argv[1]))
    dist.destroy_process_group()
