"""One training script with one logger and one failure: `python -m benchmarks.failures.child LOGGER FAILURE FOLDER
ADDRESS STEPS`.

What happens to it is told to the runner through a pipe (the descriptor in REPORT), a line at a time, so that nothing is
lost with the process: what it did (`start`, `step`, `close`, `half`, `worker hangs`), how long that took, what it
raised. At `half` of a run whose server is to die it waits until that has happened (a line on standard input).
"""

import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .loggers import LOGGERS, Logger, Place

STEP_SECONDS = 0.002
SCALARS = 12
WORKER_FROM = 1_000_000
WORKER_STEPS = 20
WORKER_SECONDS = 20.0
BALLAST = "ballast"
"""What fills a small disk at `half` of a run whose disk is to be full."""

Tell = Callable[..., None]


def main(arguments: list[str]) -> None:
    """Train."""
    name, failure, folder, address, steps = arguments
    tell = _teller(int(os.environ["REPORT"]))
    place = Place(Path(folder), address)
    opened: list[Logger] = []
    if _timed(tell, "start", lambda: opened.append(LOGGERS[name](place))):
        return
    logger = opened[0]
    for step in range(int(steps)):
        if step == int(steps) // 2:
            _fail(failure, logger, place, tell)
        time.sleep(STEP_SECONDS)
        _log(logger, step, tell)
    if failure == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if failure != "exit without close":
        _timed(tell, "close", logger.close)


def metrics_of(step: int) -> dict[str, float]:
    """What is logged of a step."""
    return {f"metric_{number}": math.sin(step + number) for number in range(SCALARS)}


def _log(logger: Logger, step: int, tell: Tell) -> None:
    metrics = metrics_of(step)
    _timed(tell, "step", lambda: logger.log(step, metrics))


def _timed(tell: Tell, what: str, call: Callable[[], object]) -> bool:
    """Whether it raised."""
    error = ""
    began = time.perf_counter()
    try:
        call()
    except Exception as raised:  # noqa: BLE001  # whatever a logger raises is the finding
        error = f"{type(raised).__name__}: {raised}"
    tell(what, time.perf_counter() - began, error)
    return bool(error)


def _fail(failure: str, logger: Logger, place: Place, tell: Tell) -> None:
    if failure == "dead in the middle":
        tell("half")
        sys.stdin.readline()
    elif failure.startswith("disk"):
        _fill(place.folder / BALLAST)
    elif failure == "fork":
        worker = multiprocessing.get_context("fork").Process(target=_work, args=(logger,))
        worker.start()
        worker.join(WORKER_SECONDS)
        if worker.is_alive():
            tell("worker hangs")
            worker.kill()


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4_096)):
            pass


def _work(logger: Logger) -> None:
    """A worker of a data loader that logs, as a dataset may do; it ends as those do, without `atexit`."""
    for step in range(WORKER_FROM, WORKER_FROM + WORKER_STEPS):
        logger.log(step, metrics_of(step))
        time.sleep(STEP_SECONDS)
    time.sleep(1.0)


def _teller(descriptor: int) -> Tell:
    def tell(what: str, seconds: float = 0.0, error: str = "") -> None:
        os.write(descriptor, (json.dumps([what, seconds, error[:300]]) + "\n").encode())

    return tell


if __name__ == "__main__":
    main(sys.argv[1:])
