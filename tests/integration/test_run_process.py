"""How real processes end: by an error, a signal, a kill; with children that were forked; as several ranks."""

import signal
from pathlib import Path

import pytest

from pilothouse.cli.brokers import LocalBroker, free_port
from pilothouse.events.codec import decode
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import RunEnded
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.tests.training_script import Script, steps_of

TRAIN = """
import os, signal, sys, time
import pilothouse
run = pilothouse.start_run("test")
for step in range(50):
    run.log(step, loss=1.0)
"""

# Not `signal.pause`: a signal that comes in the moment before it is not seen until the next one.
WAIT = "print('ready', flush=True)\nwhile True: time.sleep(0.05)"


@pytest.fixture
def script(embedded_broker: LocalBroker, tmp_path: Path) -> Script:
    return Script(embedded_broker.address, tmp_path)


def test_a_script_that_never_closes_its_run_is_completed_when_it_ends(script: Script) -> None:
    assert script.run(TRAIN).returncode == 0
    assert script.ended().outcome == "completed"
    assert steps_of(script.facts()) == list(range(50))


def test_a_script_that_never_closes_its_run_and_fails_has_crashed(script: Script) -> None:
    assert script.run(TRAIN + "raise ValueError('the loss is sad')").returncode == 1
    ended = script.ended()
    assert ended.outcome == "crashed"
    assert "the loss is sad" in ended.error


def test_sigterm_ends_a_run_as_preempted_with_everything_sent(script: Script) -> None:
    with script.start(TRAIN + WAIT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert script.ended().outcome == "preempted"
    assert steps_of(script.facts()) == list(range(50))


# Whoever is in a hurry: from the midst of the end on, the signal comes again and again.
AGAIN = """
import os, signal, threading, time
class Hurried:
    def close(self, within):
        threading.Thread(target=hurry, daemon=True).start()
        time.sleep(0.2)
def hurry():
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
run._pilots.append(Hurried())
try:
    with run:
        os.kill(os.getpid(), signal.SIGTERM)
        while True: time.sleep(0.05)
finally:
    print("unwound", flush=True)
    os._exit(9)
"""


def test_sigterm_again_and_again_breaks_off_neither_the_end_of_a_run_nor_the_script_behind_it(script: Script) -> None:
    ended = script.run(TRAIN + AGAIN)
    assert (ended.stdout, ended.returncode) == ("unwound\n", 9)
    assert script.ended().outcome == "preempted"
    assert steps_of(script.facts()) == list(range(50))


BROKEN_OFF = """
class Hurried:
    def close(self, within):
        raise KeyboardInterrupt
run._pilots.append(Hurried())
run.close("stopped", "by hand")
"""


def test_an_end_that_ctrl_c_broke_off_is_made_up_for_at_exit(script: Script, tmp_path: Path) -> None:
    away = f"127.0.0.1:{free_port()}"
    script.run(TRAIN + BROKEN_OFF, PILOTHOUSE_KAFKA=away)
    (folder,) = (tmp_path / "spool" / script.run_id).iterdir()
    facts = [decode(record.headers, record.body) for record in read_folder(folder)]
    ended = facts[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.outcome, ended.error) == ("stopped", "by hand")
    assert steps_of([fact for fact in facts if isinstance(fact, TrainerFact)]) == list(range(50))


FORKED = """
hears, says = os.pipe()
if (child := os.fork()) == 0:
    os.write(says, b"!")
    while True: time.sleep(0.05)
os.read(hears, 1)  # Python forgets what a child is sent before it runs again
os.kill(child, signal.SIGTERM)
print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_forked_child_dies_of_sigterm_as_if_we_were_not_there(script: Script) -> None:
    assert script.run(TRAIN + FORKED).stdout == f"{int(signal.SIGTERM)}\n"


def test_where_warnings_are_errors_kafka_is_reached_all_the_same(script: Script) -> None:
    ended = script.run("import warnings; warnings.simplefilter('error')\n" + TRAIN)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert steps_of(script.facts()) == list(range(50))


def test_a_script_with_its_own_sigterm_handler_keeps_it(script: Script) -> None:
    own = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: (print('mine', flush=True), sys.exit(7)))\n"
    with script.start(own + TRAIN + WAIT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "mine\n"
        assert process.wait(30) == 7
    assert script.ended().outcome == "preempted"


WITHIN = """
import sys
import pilothouse
with pilothouse.start_run("test") as run:
    for step in range(50):
        run.log(step, loss=1.0)
    {}
"""


@pytest.mark.parametrize(
    "end, outcome",
    [("raise KeyboardInterrupt", "stopped"), ("sys.exit(3)", "crashed"), ("1 / 0", "crashed"), ("pass", "completed")],
)
def test_however_a_loop_ends_everything_is_sent_and_the_outcome_is_told(end: str, outcome: str, script: Script) -> None:
    script.run(WITHIN.format(end))
    assert script.ended().outcome == outcome
    assert steps_of(script.facts()) == list(range(50))


def test_a_forked_child_publishes_nothing_and_the_parent_goes_on(script: Script) -> None:
    text = (
        TRAIN
        + """
for _ in range(5):
    child = os.fork()
    if child == 0:
        run.log(999, loss=1.0)
        run.stage("evaluate")
        run.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.1)
run.log(50, loss=1.0)
"""
    )
    done = script.run(text)
    assert (done.returncode, done.stderr) == (0, "")
    assert steps_of(script.facts()) == list(range(51))


def test_workers_of_a_data_loader_do_not_disturb_the_run(script: Script) -> None:
    text = (
        TRAIN
        + """
import torch
class Data(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, index):
        run.log(1000 + index, loss=1.0)
        return index
for batch in torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork"):
    run.log(50 + int(batch[0]), loss=1.0)
"""
    )
    assert script.run(text).returncode == 0
    assert steps_of(script.facts()) == list(range(58))


RANKS = """
import os, sys
import torch.distributed as dist
import pilothouse, pilothouse.producers.run
ranks = []
for rank in range(2):  # forked, so that one import is enough
    if (pid := os.fork()) == 0:
        break
    ranks.append(pid)
else:
    sys.exit(any([os.waitpid(pid, 0)[1] for pid in ranks]))
dist.init_process_group("gloo", rank=rank, world_size=2)
for name, who in (("all", (0, 1)), ("alone", (0,))):
    if rank in who:
        with pilothouse.start_run(name) as run:
            run.log(rank, loss=1.0)
            os.write(1, (" ".join(map(str, run.identity)) + "\\n").encode())
dist.barrier()
dist.destroy_process_group()
if rank == 0:
    run._host._thread.join(30)  # whoever might still ask "alone" is gone with the group
    assert not run._host._thread.is_alive()
"""


def test_ranks_agree_on_who_they_are_and_rank_zero_may_be_alone(script: Script) -> None:
    del script.environ["PILOTHOUSE_RUN_ID"]
    done = script.run(RANKS, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    assert (done.returncode, done.stderr) == (0, "")
    said = sorted(line.split() for line in done.stdout.splitlines())
    assert [(rank, world) for *_, rank, world in said] == [("0", "2"), ("1", "2"), ("0", "2")]
    assert said[0][:3] == said[1][:3] != said[2][:3]
    assert [run_id.rpartition("-")[0] for run_id, *_ in said] == ["all", "all", "alone"]
