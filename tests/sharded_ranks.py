"""Two ranks of models that are spread over them: `python -m pilothouse.tests.sharded_ranks PORT FOLDER`. Each is a fork
of one process, which has imported torch, and writes what it saw to `FOLDER/rank-N.json`.
"""

import faulthandler
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.data import DataLoader

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
from pilothouse.producers.ranks.ballots import find_ballots
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.settings import Settings
from pilothouse.tests.pilot_world import Order, Tape, links_of
from pilothouse.tests.watched_tape import WatchedTape

WORLD = 2
HANGS_SECONDS = 90.0
CPU = torch.device("cpu")


def layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Dropout(0.0))


class Sharded(WatchedTape):
    """Its pilots agree through the process group."""

    def __init__(self, name: str, orders: list[Order]) -> None:
        super().__init__(orders)
        self.name = name
        self.identity = self.identity._replace(rank=dist.get_rank(), world_size=dist.get_world_size())

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> Pilot:
        rank, world = dist.get_rank(), dist.get_world_size()
        links = links_of(self.script if rank == 0 else None, find_ballots(self.name, rank, world))
        self.pilots.append(Pilot(self, model, optimizer, settings=Settings(), links=links, **steered))
        return self.pilots[-1]


def shards(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[float]]:
    """This rank's part of the weights and moments."""
    tensors = [*model.parameters(), *(state["exp_avg"] for state in optimizer.state.values())]
    return [tensor.detach().to_local().flatten().tolist() for tensor in tensors]


def back(tape: Tape) -> Rollback:
    return Rollback(checkpoint=tape.saved()[0])


def orders() -> list[Order]:
    return [
        Order(2, CheckpointNow()),
        Order(9, SetClip(value=0.01)),
        Order(16, back),
        Order(10, ScaleLr(factor=0.5)),
        Order(10, SetWeightDecay(value=0.2)),
        Order(10, SetDropout(value=0.1)),
        Order(10, SkipBatches(count=3)),
        Order(10, Pause(max_seconds=60.0)),
        Order(10, Resume()),
        Order(10, Stop()),
    ]


def wrapped(name: str, model: nn.Module, orders: list[Order], **steered: Any) -> dict[str, Any]:
    """A model in a wrapper that spreads it by itself: DDP, or the older FSDP."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    tape = Sharded(name, orders)
    loader: Any = DataLoader(torch.randn(160, 4), batch_size=4)  # type: ignore[arg-type]  # a tensor is a data set
    with watch(tape, model, optimizer, steer=bool(orders), **steered) as watched:
        for batch in watched.batches(loader):
            optimizer.zero_grad()
            (model(batch) - 1.0).square().mean().backward()
            optimizer.step()
    for pilot in tape.pilots:
        pilot.close()
    return {"rows": tape.rows, "steers": tape.steerable, "receipts": tape.of("intervention_receipt")}


def main(folder: Path) -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = layers()
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    tape = Sharded("sharded", orders())
    batches = []
    after: list[tuple[int, list[list[float]]]] = []
    norms = []
    with watch(tape, model, optimizer, steer=True, checkpoints=folder / "checkpoints") as watched:
        for number in watched.batches(range(200)):
            batches.append(number)
            torch.manual_seed(number)
            optimizer.zero_grad()
            (model(torch.randn(8, 4)) - 1.0).square().mean().backward()
            whole: Any = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            norms.append(float(whole.full_tensor()))
            optimizer.step()
            after.append((watched.step - 1, shards(model, optimizer)))
    told: dict[str, Any] = {
        "receipts": tape.of("intervention_receipt"),
        "saved": [ref.model_dump() for ref in tape.saved()],
    }
    for pilot in tape.pilots:
        pilot.close()
    told |= {"batches": batches, "skipped": tape.of("data_window_skipped"), "stages": tape.stages}
    told |= {"weight_decay": optimizer.param_groups[0]["weight_decay"], "dropout": model[3].p}
    ddp, flat = nn.parallel.DistributedDataParallel(layers()), FullyShardedDataParallel(layers(), device_id=CPU)
    told |= {"ddp": wrapped("ddp", ddp, [])}
    told |= {
        "flat": wrapped("flat", flat, [Order(2, ScaleLr(factor=0.5)), Order(6, Stop())], checkpoints=folder / "flat")
    }
    saw = told | {"rows": tape.rows, "after": after, "norms": norms}
    (folder / f"rank-{dist.get_rank()}.json").write_text(json.dumps(saw))


def be_a_rank(rank: int, port: int, folder: Path) -> int:
    """Its exit status."""
    faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    try:
        main(folder)
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001  # what the interpreter would do of a process that was not forked
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])  # imports the compiler, before the ranks are forked
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    pids = [os.fork() or os._exit(be_a_rank(rank, port, folder)) for rank in range(WORLD)]
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
