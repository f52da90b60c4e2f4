"""`pilothouse run -- ...`: unchanged scripts, through the real command line and with a real broker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaProducer

from pilothouse.cli.brokers import LocalBroker, free_port
from pilothouse.events.actions import Action, ScaleLr, SetClip
from pilothouse.events.codec import encode
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import InterventionReceipt, RunEnded, RunStarted, StageChanged, StepBatch
from pilothouse.events.topics import CONTROL, partition_key, partition_of
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.log_reader import read_run
from pilothouse.tests.pilot_world import issued
from pilothouse.tests.stack_fixture import CLI, refused, typed

PLAIN = """
import sys
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for step, batch in enumerate(torch.utils.data.DataLoader(torch.ones(160, 4), batch_size=8)):
    optimizer.zero_grad()
    loss = (model(batch) - 1.0).square().mean()
    loss.backward()
    optimizer.step()
    print(f"{step} {loss.item():.6f}")
    if step == 9:
        model.eval()
        model.train()
print(sys.argv[1:], "site" in sys.modules["sitecustomize"].__dict__)
sys.exit(3)
"""

TWO_RANKS = """
import os, pathlib, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

torch.set_num_threads(1)
dist.init_process_group("gloo")
model = DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
done, ended = torch.zeros(1), pathlib.Path(sys.argv[1])
while not done:
    optimizer.zero_grad()
    (model(torch.ones(8, 4)) - 1.0).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    scheduler.step()
    done.fill_(ended.exists())
    dist.all_reduce(done)
assert optimizer.param_groups[0]["lr"] == 1e-3
dist.destroy_process_group()
"""

ONLY_RANK_1 = """
import os, pathlib, sys, threading, time
import torch
import torch.distributed as dist

rank = 0 if os.fork() else 1
os.environ["RANK"] = str(rank)
dist.init_process_group("gloo")
if rank == 1:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    while not pathlib.Path(sys.argv[1]).exists():
        torch.autograd.backward(torch.autograd.graph.get_gradient_edge(weight.square().sum()))
        began = time.monotonic()
        optimizer.step()
        is_open = any(thread.name == "pilothouse-outbox" for thread in threading.enumerate())
        print(time.monotonic() - began, is_open, flush=True)
        time.sleep(0.01)
dist.barrier()
"""

WITHOUT_TORCH = "import sys\nprint('hello')\nsys.exit(5)\n"
WITHOUT_BACKWARD = """
import torch

weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
for _ in range(3):
    (weight.grad,) = torch.autograd.grad(weight.square().sum(), weight)
    optimizer.step()
print(weight.grad.item())
"""
KILLED = """
import os, signal
import torch

weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
weight.square().sum().backward()
optimizer.step()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
os.kill(os.getpid(), signal.SIGTERM)
"""
OF_ITS_OWN = """
import torch
import pilothouse

weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
with pilothouse.start_run("mine", run_id={run_id!r}) as run:
    for step in range(3):
        weight.square().sum().backward()
        optimizer.step()
        run.log(step, loss=1.0)
"""


class Shell:
    """Runs commands as a person does; `facts` reads what they published."""

    def __init__(self, broker: LocalBroker, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.run_id = f"run-{uuid4().hex[:8]}"
        others = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
        self.environ = others | {
            "PILOTHOUSE_KAFKA": broker.address,
            "PILOTHOUSE_DATA_DIR": str(folder / "data"),
            "PILOTHOUSE_EMBEDDED_BROKER": "true",
            "OMP_NUM_THREADS": "1",
        }

    def script(self, text: str) -> str:
        path = self.folder / f"script_{uuid4().hex[:6]}.py"
        path.write_text(text)
        return str(path)

    def run(self, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words, env=self.environ | environ, capture_output=True, text=True, timeout=120, check=False
        )

    def watched(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        return [*CLI, "run", "--run-id", self.run_id, *options, "--", *command]

    def facts(self) -> list[TrainerFact]:
        """All that rank 0 told, and what others did until it ended."""
        return read_run(
            self.broker.address,
            self.run_id,
            PARTITIONS,
            until=lambda fact: isinstance(fact, RunEnded) and fact.rank == 0,
        )


@pytest.fixture
def shell(embedded_broker: LocalBroker, tmp_path: Path) -> Shell:
    return Shell(embedded_broker, tmp_path)


def rows(facts: list[TrainerFact], rank: int = 0) -> dict[str, list[float | None]]:
    """Every metric of a rank over its steps, and the steps themselves."""
    found: dict[str, list[float | None]] = {"step": []}
    for batch in (fact for fact in facts if isinstance(fact, StepBatch) and fact.rank == rank):
        found["step"] += batch.steps
        for name, column in batch.metrics.items():
            found.setdefault(name, []).extend(value for value in column if value is not None)
    return found


def test_an_unchanged_script_is_published_and_neither_its_output_nor_its_end_is_another(shell: Shell) -> None:
    (shell.folder / "site").mkdir()
    (shell.folder / "site" / "sitecustomize.py").write_text("site = 'the one that was there before'\n")
    script, path = shell.script(PLAIN), str(shell.folder / "site")
    shell.environ["PYTHONPATH"] = path
    alone = shell.run(sys.executable, script, "--epochs", "3")
    answer = shell.run(*shell.watched(sys.executable, script, "--epochs", "3"))
    assert (answer.returncode, answer.stdout) == (3, alone.stdout)
    assert "['--epochs', '3'] True" in alone.stdout
    facts = shell.facts()
    seen = rows(facts)
    assert seen["step"] == list(range(20))
    losses = [float(line.split()[1]) for line in alone.stdout.splitlines()[:20]]
    assert seen["loss"] == pytest.approx(losses, abs=1e-6)
    assert set(seen["lr"]) == {0.01}
    assert len(seen["grad_norm"]) == 20
    assert len(seen["step_time_s"]) == 19
    assert len(seen["data_wait_s"]) == len(seen["compute_s"]) == 20
    stages = [(fact.stage, fact.step) for fact in facts if isinstance(fact, StageChanged)]
    assert stages[-2:] == [("evaluate", 9), ("train", 9)]
    assert isinstance(facts[-1], RunEnded)
    assert answer.stderr.splitlines()[-1] == (f"pilothouse: run {shell.run_id}: 20 steps watched (loss, grad_norm, lr)")


def test_a_script_that_is_not_understood_runs_as_if_we_were_not_there_and_is_told_so(shell: Shell) -> None:
    texts = (WITHOUT_TORCH, WITHOUT_BACKWARD, KILLED, OF_ITS_OWN.format(run_id=f"{shell.run_id}-own"))
    commands = [shell.watched(sys.executable, shell.script(text)) for text in texts]
    with ThreadPoolExecutor(2) as pool:
        plain, counted, killed, own = pool.map(lambda command: shell.run(*command), commands)
    assert (plain.returncode, plain.stdout) == (5, "hello\n")
    assert plain.stderr == "pilothouse: nothing was watched: the script never imported torch\n"
    assert (counted.returncode, round(float(counted.stdout), 3)) == (0, 1.28)
    assert counted.stderr == f"pilothouse: run {shell.run_id}: 3 steps watched (grad_norm, lr); not found: loss\n"
    assert killed.returncode == -signal.SIGTERM
    assert (own.returncode, own.stderr) == (
        0,
        "pilothouse: nothing was watched: the script uses Pilothouse itself\n",
    )


def order(shell: Shell, started: RunStarted, number: int, action: Action) -> None:
    """What a governor would write to the control topic."""
    command = issued(action, attempt_id=started.attempt_id, number=number, run_id=shell.run_id)
    encoded = encode(command)
    producer = KafkaProducer(bootstrap_servers=[shell.broker.address])
    producer.send(
        CONTROL.name,
        value=encoded.body,
        key=partition_key(command),
        headers=encoded.headers,
        partition=partition_of(shell.run_id, PARTITIONS),
    )
    producer.flush(timeout=20)
    producer.close()


@contextmanager
def running(command: list[str], environ: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def test_both_ranks_of_an_unchanged_script_step_with_the_rate_and_clip_that_were_ordered(shell: Shell) -> None:
    script, ended = shell.script(TWO_RANKS), shell.folder / "ended"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = shell.watched(*torchrun, script, str(ended), options=("--steer", "lr,clip"))
    receipts: list[InterventionReceipt] = []

    def steering(fact: TrainerFact) -> bool:
        return isinstance(fact, RunStarted) and bool(fact.steers)

    def answered(fact: TrainerFact) -> bool:
        if isinstance(fact, InterventionReceipt):
            receipts.append(fact)
        return len(receipts) == 4

    with running(command, shell.environ) as process:
        started = read_run(shell.broker.address, shell.run_id, PARTITIONS, until=steering, seconds=90)[-1]
        assert isinstance(started, RunStarted)
        assert (started.world_size, started.steers) == (2, ("scale_lr", "set_clip", "notify", "revert"))
        order(shell, started, 1, ScaleLr(factor=0.5))
        order(shell, started, 2, SetClip(value=0.25))
        read_run(shell.broker.address, shell.run_id, PARTITIONS, until=answered, seconds=60)
        ended.touch()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert {(fact.rank, fact.intervention_id, fact.outcome) for fact in receipts} == {
        (rank, f"i-{number}", "applied") for rank in (0, 1) for number in (1, 2)
    }
    assert len({(fact.intervention_id, fact.step) for fact in receipts}) == 2
    assert {tuple(fact.before.items()) for fact in receipts if fact.intervention_id == "i-2"} == {(("clip", 5.0),)}
    seen = rows(shell.facts())
    assert seen["step"] == list(range(len(seen["step"])))
    assert (seen["lr"][0], seen["lr"][-1]) == (1e-3, 5e-4)
    assert all(took is not None and 0.0 < took < 30.0 for took in seen["comm_s"])
    said = [line for line in errors.splitlines() if "pilothouse" in line and "not signed" not in line]
    assert said == [f"pilothouse: run {shell.run_id}: {len(seen['step'])} steps watched (loss, grad_norm, lr)"]


def test_a_rank_that_steps_alone_waits_for_nobody_and_is_published(shell: Shell) -> None:
    """Rank 0 has no optimizer, as an actor beside its learner; and nothing here says what the loss is."""
    script, ended = shell.script(ONLY_RANK_1), shell.folder / "ended"
    launched = {
        "PILOTHOUSE_NO_SUCH_SETTING": "1",
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }

    def stepped(fact: TrainerFact) -> bool:
        return isinstance(fact, StepBatch)

    with running(shell.watched(sys.executable, script, str(ended)), shell.environ | launched) as process:
        told = read_run(shell.broker.address, shell.run_id, PARTITIONS, until=stepped, seconds=90)
        ended.touch()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert isinstance(told[0], RunStarted)
    assert (told[0].rank, told[0].world_size) == (0, 2)
    took, was_open = output.splitlines()[0].split()
    assert (float(took) < 5.0, was_open) == (True, "False")
    seen = rows(shell.facts(), rank=1)
    assert seen["step"][:1] == [0]
    assert set(seen["lr"]) == {0.1}
    assert (
        errors.splitlines()[-1] == f"pilothouse: run {shell.run_id}: rank 0 took no step; those of others are watched"
    )


def test_what_cannot_be_asked_for_is_one_line(tmp_path: Path) -> None:
    line = refused(typed("run", "--steer", "lr,batch_size", "--", "true", data_dir=tmp_path))
    assert line == "pilothouse: --steer takes lr, clip, weight_decay, pause, with commas between them; got batch_size"
    line = refused(typed("run", "--", "no-such-command", data_dir=tmp_path))
    assert line == "pilothouse: there is no command 'no-such-command' here: pilothouse run -- python train.py"
