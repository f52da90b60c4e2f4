"""The ranks of a real training under torch.distributed, as a program: `python -m pilothouse.tests.pilot_ranks SCENARIO
WORLD PORT FOLDER`.

Each rank is a process, forked when torch and its optimizers are imported, which is most of the time that one takes. It
writes what it saw to `FOLDER/SCENARIO-RANK.json` and its stderr to `.err`; how each ended is in `FOLDER/SCENARIO.json`,
by its rank. Scenarios: `steered` (DDP, every intervention once; and again, following what was applied), `lonely`
(ranks that share no collective; one is killed), `restarted` (goes on from what `steered` saved).
"""

import faulthandler
import hashlib
import itertools
import json
import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pilothouse.events.actions import (
    CheckpointNow,
    CheckpointRef,
    Pause,
    Resume,
    Revert,
    Rollback,
    ScaleLr,
    SetClip,
    SetWeightDecay,
    SkipBatches,
    Stop,
)
from pilothouse.events.decisions import OPERATOR
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.faults import Injector, read_faults
from pilothouse.producers.ranks.ballots import find_ballots
from pilothouse.producers.steering.following import Following
from pilothouse.producers.steering.knobs import Knob
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.producers.steering.plan import Plan, Planned
from pilothouse.settings import Settings
from pilothouse.tests.pilot_world import Order, Script, Tape, links_of

STEPS = 300
STEP_SECONDS = 0.004
SLOW_RANK = 3
"""Takes three times as long for a step as the others."""
TOGETHER_STEPS, ALONE_STEPS = 50, 250
HANGS_SECONDS = 90.0
"""A rank that takes longer says where it stands, and ends."""


class SpoiltOnThisRank(Checkpoints):
    """Reads one flipped byte of the model for as long as `spoil` is set: a bad disk under one rank."""

    spoil = False

    def _bytes(self, checkpoint_id: str, name: str) -> bytes:
        raw = bytearray(super()._bytes(checkpoint_id, name))
        if self.spoil and name == "model.pt":
            raw[len(raw) // 2] ^= 1
        return bytes(raw)


class Clip:
    """A knob of the script's own; on rank 1 its setter breaks for one value."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.value = 1.0

    def set(self, value: float) -> None:
        if self.rank == 1 and value == 1.5:
            raise RuntimeError("the optimizer has no such option")
        self.value = value


def digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """All that must come back bit for bit: weights, moments, generators."""
    summed = hashlib.sha256()
    for tensor in model.state_dict().values():
        summed.update(tensor.numpy().tobytes())
    for state in optimizer.state_dict()["state"].values():
        for value in state.values():
            summed.update(value.numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode())
    summed.update(torch.get_rng_state().numpy().tobytes())
    summed.update(repr(random.getstate()).encode())
    return summed.hexdigest()


def saved_at(tape: Tape, step: int) -> CheckpointRef:
    return next(ref for ref in tape.saved() if ref.step == step)


def refused_rollback(tape: Tape) -> Rollback:
    return Rollback(checkpoint=saved_at(tape, 20), lr_factor=0.5)


def good_rollback(tape: Tape) -> Rollback:
    return Rollback(checkpoint=saved_at(tape, 40), skip_batches=5, lr_factor=0.5)


ORDERS = [
    Order(2, ScaleLr(factor=0.5)),  # i-1: applied
    Order(3, SetClip(value=5.0)),  # i-2: refused by the limits of rank 2
    Order(4, SetClip(value=1.5)),  # i-3: the setter of rank 1 raises
    Order(5, SetClip(value=0.5)),  # i-4: applied
    Order(5, SkipBatches(count=3)),  # i-5: at once with the one before; applied after it
    Order(100, refused_rollback),  # i-6: corrupt on rank 1
    Order(110, good_rollback),  # i-7: applied
    Order(42, ScaleLr(factor=0.5), {"attempt_id": "attempt-1"}),  # i-8: for the attempt that was given up
    Order(43, Pause(max_seconds=60.0)),  # i-9
    Order(43, Resume()),  # i-10
    Order(44, CheckpointNow()),  # i-11
    Order(44, ScaleLr(factor=0.5), {"expires_step": 30}),  # i-12: heard after its time
    Order(45, SetWeightDecay(value=0.25)),  # i-13: applied
    # i-14: put back; i-15: changed since; i-16: the setter of rank 1 raises while it is put back
    Order(46, Revert(intervention_id="i-13", values={"weight_decay": 0.01}, left={"weight_decay": 0.25})),
    Order(46, Revert(intervention_id="i-1", values={"lr_multiplier": 1.0}, left={"lr_multiplier": 0.5})),
    Order(46, Revert(intervention_id="another process's", values={"clip": 1.5}, left={"clip": 0.5})),
    # i-17: ordered before the rollback, heard after it; a person's word about the run
    Order(47, Stop(), {"attempt_id": "attempt-1", "rule": OPERATOR}),
]


def steered(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """Under orders; then the same again, as fast as it goes, by the plan of what was applied."""
    tape = Tape(rank, world)
    saw = training(tape, folder / "checkpoints", ORDERS, None)
    again = Tape(rank, world, attempt_id="attempt-of-the-follower", run_id="run-2")
    following = Following(again, plan_of_all(tape))
    return saw | {"followed": training(again, folder / "again", [], following) | {"fault": following.fault}}


def plan_of_all(tape: Tape) -> Plan:
    """What rank 0 saw applied, as every rank would read it from one file."""
    told = [
        Plan(run_id="run-1", interventions=tuple(applied(tape))).model_dump_json() if not tape.identity.rank else ""
    ]
    dist.broadcast_object_list(told)
    return Plan.model_validate_json(told[0])


def applied(tape: Tape) -> list[Planned]:
    done: list[Planned] = []
    stretch = 0
    for fields in tape.of("intervention_receipt"):
        order = ORDERS[int(fields["intervention_id"].removeprefix("i-")) - 1]
        if fields["outcome"] != "applied" or isinstance(order.action, Pause | Resume):
            continue
        action = order.action(tape) if callable(order.action) else order.action
        name, step = fields["intervention_id"], fields["step"]
        done.append(Planned(stretch=stretch, step=step, intervention_id=name, rule="test", action=action))
        stretch += isinstance(action, Rollback)
    return done


def training(  # noqa: PLR0915  # a training script, as people write them
    tape: Tape, folder: Path, orders: list[Order], following: Following | None
) -> dict[str, Any]:
    _, _, _, rank, world = tape.identity
    torch.manual_seed(1)
    random.seed(rank)
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.Tanh(), nn.Linear(16, 1))
    )
    torch.manual_seed(100 + rank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.99**step)
    data = torch.randn(1_000, 4, 8, generator=torch.Generator().manual_seed(rank))
    script, clip = Script(tape, orders), Clip(rank)
    checkpoints = SpoiltOnThisRank(folder, every=20, keep=50 if following is None else 1)
    ballots = find_ballots(tape.identity.attempt_id, rank, world)
    pilot = Pilot(
        tape,
        model,
        optimizer,
        settings=Settings(),
        scheduler=scheduler,
        knobs={"clip": Knob(clip.set, lambda: clip.value, 0.0, 2.0 if rank == 2 else 10.0)},
        checkpoints=checkpoints,
        links=links_of(script if rank == 0 else None, ballots),
        following=following,
    )
    stepped_with: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: stepped_with.append(optimizer.param_groups[0]["lr"]))
    rows, slowest = [], 0.0
    for step, batch in pilot.batches(data, steps=STEPS):
        script.step = step
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        random.random()
        optimizer.step()
        own_rate = optimizer.param_groups[0]["lr"]
        scheduler.step()
        if following is None:
            time.sleep(STEP_SECONDS * (3 if rank == SLOW_RANK else 1))
        checkpoints.spoil = following is None and rank == 1 and not tape.receipts("i-6")
        began = time.monotonic()
        signal = pilot.safe_point(step)
        slowest = max(slowest, time.monotonic() - began)
        rows.append([step, pilot.data_position, own_rate, stepped_with[-1], clip.value, pilot.lr_multiplier,
                     digest(model.module, optimizer), signal.rolled_back_to, pilot.knob("weight_decay")])  # fmt: skip
    pilot.close()
    return {"rows": rows, "told": tape.told, "outcome": tape.outcome, "stages": tape.stages, "steers": tape.steerable,
            "over": pilot.steering_over, "slowest": slowest}  # fmt: skip


def lonely(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """Ranks that train in step at first, then without any collective, so that the living do not wait for the dead; who
    dies is in FAULTS.
    """
    faults = Injector(read_faults(os.environ["FAULTS"]))
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    tape = Tape(rank, world)
    script = Script(tape, [Order(5, ScaleLr(factor=0.5)), Order(90, ScaleLr(factor=0.5))])
    ballots = find_ballots("lonely", rank, world)
    pilot = Pilot(tape, weight, optimizer, settings=Settings(), links=links_of(script if rank == 0 else None, ballots))
    slowest, deadline = 0.0, time.monotonic() + HANGS_SECONDS / 2
    for step in itertools.count():
        settled = tape.receipts("i-2") or pilot.steering_over
        if step >= ALONE_STEPS and (settled or time.monotonic() > deadline):
            break
        if step < TOGETHER_STEPS:
            dist.barrier()
        script.step = step
        time.sleep(STEP_SECONDS)
        faults.at("safe_point", rank, step)
        began = time.monotonic()
        pilot.safe_point(step)
        slowest = max(slowest, time.monotonic() - began)
    over = pilot.steering_over
    pilot.close()
    return {"told": tape.told, "slowest": slowest, "over": over}


def restarted(rank: int, world: int, folder: Path) -> dict[str, Any]:
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.Tanh(), nn.Linear(16, 1))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.99**step)
    tape, clip = Tape(rank, world, attempt_id="attempt-9"), Clip(rank)
    pilot = Pilot(
        tape,
        model,
        optimizer,
        settings=Settings(),
        scheduler=scheduler,
        knobs={"clip": Knob(clip.set, lambda: clip.value)},
        checkpoints=folder / "checkpoints",
        links=links_of(None, find_ballots("restarted", rank, world)),
    )
    step = pilot.restore_latest()
    after = digest(model.module, optimizer)
    positions = [(number, pilot.data_position) for number, _ in pilot.batches(range(1_000), steps=(step or 0) + 3)]
    pilot.close()
    return {"step": step, "digest": after, "told": tape.told, "clip": clip.value, "multiplier": pilot.lr_multiplier,
            "positions": positions}  # fmt: skip


def main(scenario: str, world: int, port: int, folder: Path) -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])  # imports the compiler
    ranks = [fork(scenario, rank, world, port, folder) for rank in range(world)]
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
    (folder / f"{scenario}.json").write_text(json.dumps(ended))


def fork(scenario: str, rank: int, world: int, port: int, folder: Path) -> int:
    """Its pid."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        with (folder / f"{scenario}-{rank}.err").open("wb") as errors:
            os.dup2(errors.fileno(), 2)
        be_a_rank(scenario, rank, world, port, folder)
        status = 0
    except BaseException:  # noqa: BLE001  # what the interpreter would do of a process that was not forked
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def be_a_rank(scenario: str, rank: int, world: int, port: int, folder: Path) -> None:
    faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    saw = {"steered": steered, "lonely": lonely, "restarted": restarted}[scenario](rank, world, folder)
    (folder / f"{scenario}-{rank}.json").write_text(json.dumps(saw))
    if scenario != "lonely":
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
