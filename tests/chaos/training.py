"""A real, governed training of some ranks that breaks at named points: `python -m pilothouse.tests.chaos.training DIR`.

When a rank fails all are launched again, as torchrun would; they are forked when torch is imported, which is most of
the time that they take. Each launch leaves `statuses-N.json`. Faults are those of `producers.faults` (`FAULTS`; of the
first launch alone), and one more: `DAMAGE` names a step whose checkpoint is spoilt on the disk as soon as it is there.
`REDIRECT` (`PORT:OTHER`) leads connections to the broker elsewhere, as a router would. It trains until all that was to
happen has happened (`NEEDS` attempts or launches), and `LEAST` steps. What it logs stands on its tape first, a line a
step.
"""

import json
import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kafka  # noqa: F401  # before the forks, as torch is
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pilothouse
from pilothouse.cli.brokers import HOST, free_port
from pilothouse.producers.checkpoints.manifest import Part, Standing
from pilothouse.producers.checkpoints.store import Checkpoints, Saved
from pilothouse.producers.faults import Injector, read_faults

WORLD = 2
LAUNCHES = 3
GRACE_SECONDS = 20.0
"""After one rank's death the others have so long to end by themselves: gloo tells them in a second."""
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
    checkpoints = SpoiltCheckpoints(folder / "checkpoints", every=EVERY, keep=MOST_STEPS)
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


def launched(folder: Path, launch: int) -> list[int]:
    """Fork the ranks, wait for all; when one fails, the others have a while to end by themselves. Their statuses."""
    os.environ |= {"MASTER_ADDR": HOST, "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(WORLD)}
    ranks = {_forked(folder, launch, rank): rank for rank in range(WORLD)}
    statuses: dict[int, int] = {}
    ends = [(GRACE_SECONDS, signal.SIGTERM), (3 * GRACE_SECONDS, signal.SIGKILL)]
    failed_at = math.inf
    while len(statuses) < WORLD:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            statuses[ranks[pid]] = code = os.waitstatus_to_exitcode(status)
            failed_at = min(failed_at, time.monotonic()) if code else failed_at
        while ends and time.monotonic() > failed_at + ends[0][0]:
            _, number = ends.pop(0)
            for one in (pid for pid, rank in ranks.items() if rank not in statuses):
                os.kill(one, number)
        time.sleep(0.02)
    return [statuses[rank] for rank in range(WORLD)]


def _forked(folder: Path, launch: int, rank: int) -> int:
    if pid := os.fork():
        return pid
    status = 1
    try:
        with (folder / f"rank-{launch}-{rank}.log").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        dist.init_process_group("gloo")
        train(folder, launch)
        dist.destroy_process_group()
        status = 0
    except SystemExit as told:
        status = int(told.code or 0)
    except BaseException:  # noqa: BLE001  # what the interpreter would do of a process that was not forked
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(folder: Path) -> int:
    redirect(os.environ.get("REDIRECT", ""))
    torch.set_num_threads(1)
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])  # imports the compiler, once for all
    for launch in range(1, LAUNCHES + 1):
        statuses = launched(folder, launch)
        draft = folder / "draft"
        draft.write_text(json.dumps(statuses))
        draft.rename(folder / f"statuses-{launch}.json")
        if not any(statuses):
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
