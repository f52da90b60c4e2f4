"""Ranks under torchrun's own agents, as a program: `python -m pilothouse.tests.elastic_ranks FOLDER PORT`.

Two agents with one rank each, through two launches. Rank 1 dies, which its own agent counts as a restart and the other
as a change of members. The store through which the ranks meet is the agents' and outlives the first launch. Each rank
begins a run before there is a process group and one after; in the second launch rank 0 comes when the other has asked.
What a rank says of itself is in `FOLDER/LAUNCH-RANK.json`. Agents and ranks are forked when torch is imported, which is
most of the time that they take.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kafka  # noqa: F401  # before the forks, as torch is
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import pilothouse
from pilothouse.producers.ranks.meeting import Host
from pilothouse.producers.run import Run
from pilothouse.settings import Settings

NAMES = ("early", "late")
DEADLINE = 60.0


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Rank:
    """One process of one launch."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.store: Any = dist.TCPStore(  # type: ignore[attr-defined]  # public, but not in __all__
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False
        )
        self.launch = self.store.add(f"test/launch/{self.rank}", 1)
        self.settings = Settings(kafka="127.0.0.1:1", data_dir=self.folder, close_seconds=0.1, resources_seconds=0)
        self.said: dict[str, Any] = {"restarts": os.environ["TORCHELASTIC_RESTART_COUNT"]}

    def train(self) -> None:
        if self.rank == 0:
            self._forget_the_dead()
        runs = []
        for name in NAMES:
            if name == "late":
                dist.init_process_group("gloo")
            if self.rank == 0 and self.launch == 2:
                self._wait_for_the_question(name)
            runs.append(pilothouse.start_run(name, settings=self.settings))
            self.said[name] = runs[-1].identity
        (self.folder / f"{self.launch}-{self.rank}.json").write_text(json.dumps(self.said))
        getattr(self, f"_end_{self.launch}")(*runs)

    def _end_1(self, _early: Run, late: Run) -> None:
        late.begin_attempt("rollback", first_step=5)
        if self.rank == 0:
            host = late._host
            assert isinstance(host, Host)
            until(lambda: host._kept == host._lineage, "the new attempt was not kept")
        dist.barrier()
        if self.rank == 1:
            os._exit(9)
        time.sleep(DEADLINE)  # the agent ends this launch

    def _end_2(self, *runs: Run) -> None:
        for run in runs:
            run.close()
        dist.destroy_process_group()

    def _wait_for_the_question(self, name: str) -> None:
        """Until rank 1 of this launch waits for an answer."""
        question = f"/{name}/1/question/1"
        until(lambda: any(question in key for key in self.store.list_keys()), f"{name}: rank 1 never asked who it is")

    def _forget_the_dead(self) -> None:
        """A rank that joins before the others would take gloo's addresses of the dead launch for theirs, and hang."""
        for key in self.store.list_keys():
            if "//cpu//" in key:
                self.store.delete_key(key)


def train(folder: str) -> None:
    Rank(folder).train()


def agent(folder: str, port: str) -> int:
    """Run one machine's agent; its process id."""
    if process := os.fork():
        return process
    config = LaunchConfig(
        min_nodes=2,
        max_nodes=2,
        nproc_per_node=1,
        run_id="elastic",
        rdzv_backend="c10d",
        rdzv_endpoint=f"localhost:{port}",
        max_restarts=1,
        monitor_interval=0.05,
        start_method="fork",
    )
    status = 1
    try:
        elastic_launch(config, train)(folder)
        status = 0
    finally:
        os._exit(status)


def main(folder: str, port: str) -> int:
    logging.disable(logging.ERROR)  # for a line of an agent torch imports its compiler, 2 s of it
    agents = [agent(folder, port) for _ in range(2)]
    return max(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in agents)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
