"""Trains the tasks: a few processes, each on one thread and at low priority, one task after the other.

Those that are governed through Kafka share one stack, which is up for as long as it takes.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

from pilothouse.cli.demo.stack import DemoStack
from pilothouse.settings import Settings

from .keeping import Kept
from .recipe import Row, Task

NICE = 10


def train(tasks: Sequence[Task], kept: Kept, jobs: int) -> None:
    """What has finished is kept at once; an error in one ends all."""
    with ExitStack() as open_things:
        settings = _stack(open_things) if any(task.arm.governed == "kafka" for task in tasks) else None
        context = multiprocessing.get_context("spawn")
        pool = open_things.enter_context(ProcessPoolExecutor(jobs, mp_context=context, initializer=_worker))
        waiting = [pool.submit(_trained, task, settings) for task in tasks]
        began = time.monotonic()
        try:
            for number, done in enumerate(as_completed(waiting), start=1):
                row = done.result()
                kept.add(row)
                print(
                    f"{number}/{len(tasks)}  {_line(row)}  {time.monotonic() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _stack(open_things: ExitStack) -> Settings:
    folder = open_things.enter_context(tempfile.TemporaryDirectory(prefix="pilothouse-control-stack-"))
    return open_things.enter_context(DemoStack(Path(folder))).settings


def _worker() -> None:
    os.nice(NICE)


def _trained(task: Task, settings: Settings | None) -> Row:
    from .training import Training

    return Training(task, settings).run()


def _line(row: Row) -> str:
    loss = "not finite" if row.final_val_loss is None else f"{row.final_val_loss:.3f}"
    where = f"{row.experiment} {row.setting}".strip()
    return f"{where}, {row.arm}, seed {row.seed}: {loss}, {row.interventions} interventions"
