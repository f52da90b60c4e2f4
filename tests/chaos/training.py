"""One rank of a real, governed training that breaks at named points: `python -m pilothouse.tests.chaos.training DIR`.

`job` starts the ranks as torchrun would. Faults are those of `producers.faults` (`FAULTS`; of the first launch alone),
and one more: `DAMAGE` names a step whose checkpoint is spoilt on the disk as soon as it is there. `REDIRECT`
(`PORT:OTHER`) leads connections to the broker elsewhere, as a router would. It trains until all that was to happen has
happened (`NEEDS` attempts or launches), and `LEAST` steps. What it logs stands on its tape first, a line a step.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pilothouse
from pilothouse.producers.checkpoints.manifest import Part, Standing
from pilothouse.producers.checkpoints.store import Checkpoints, Saved
from pilothouse.producers.faults import Injector, read_faults

MOST_STEPS = 4_000
STEP_SECONDS = 0.03
EVERY = 20


class SpoiltCheckpoints(Checkpoints):
    """Breaks between the files of a checkpoint, and spoils one that is whole."""

    faults: Injector
    damage = -1

    def _write(self, folder: Path, parts: Mapping[str, Part], standing: Standing) -> Any:
        def breaking(part: Part) -> Part:
            def write(file: Any) -> Any:
                self.faults.at("checkpoint", rank=0, step=standing.step)
                return part(file)

            return write

        first, *rest = parts.items()
        return super()._write(folder, {**dict([first]), **{name: breaking(part) for name, part in rest}}, standing)

    def save(self, parts: Mapping[str, Part], standing: Standing) -> Saved:
        saved = super().save(parts, standing)
        if standing.step == self.damage:
            self.damage = -1
            file = Path(saved.ref.path) / "model.pt"
            raw = bytearray(file.read_bytes())
            raw[len(raw) // 2] ^= 1
            file.write_bytes(raw)
        return saved


def redirect(ports: str) -> None:
    """Every connection of this process to the one port goes to the other."""
    if not ports:
        return
    port, other = map(int, ports.split(":"))

    def elsewhere(address: Any) -> Any:
        is_it = isinstance(address, tuple) and address[1] == port
        return (address[0], other, *address[2:]) if is_it else address

    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    socket.socket.connect = lambda self, address: connect(self, elsewhere(address))  # type: ignore[method-assign]  # that is how
    socket.socket.connect_ex = lambda self, address: connect_ex(self, elsewhere(address))  # type: ignore[method-assign]  # the same


def train(folder: Path, launch: int) -> None:
    rank = dist.get_rank()
    faults = Injector(read_faults(os.environ["FAULTS"] if launch == 1 else ""))
    needs, least = int(os.environ["NEEDS"]), int(os.environ["LEAST"])
    checkpoints = SpoiltCheckpoints(folder / "checkpoints", every=EVERY)
    checkpoints.faults, checkpoints.damage = faults, int(os.environ["DAMAGE"])
    torch.manual_seed(1)
    model = DistributedDataParallel(nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    told = torch.Generator().manual_seed(rank)
    data = [(torch.randn(64, 8, generator=told), torch.randn(64, 1, generator=told)) for _ in range(MOST_STEPS)]
    with pilothouse.start_run("trained") as run, (folder / f"tape-{launch}-{rank}").open("a", buffering=1) as tape:
        pilot = run.pilot(model, optimizer, checkpoints=checkpoints)
        pilot.restore_latest()
        for step, drawn in pilot.batches(data, MOST_STEPS):
            began = time.monotonic()
            inputs, targets = faults.batch(rank, step, pilot.data_position - 1, drawn)
            optimizer.zero_grad()
            loss = ((model(inputs) - targets) ** 2).mean()
            loss.backward()
            faults.at("grad", rank, step, model)
            optimizer.step()
            tape.write(f"{run.identity.attempt} {step}\n")
            run.log(step, loss=loss)
            faults.at("safe_point", rank, step)
            pilot.safe_point(step)
            if step >= least and max(launch, run.identity.attempt) >= needs:
                break
            time.sleep(max(0.0, began + STEP_SECONDS - time.monotonic()))


def main(folder: Path) -> None:
    redirect(os.environ.get("REDIRECT", ""))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    train(folder, int(os.environ["LAUNCH"]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
