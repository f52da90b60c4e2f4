"""The life of a worker process: wait for the broker, run the app, watch it, end with a status that says why.

`pilothouse worker governor|archiver|advisor` calls `run_worker`. Exit statuses: 0 told to stop; 2 a person's mistake,
or the broker never came; 69 it is gone; 70 a bug; 75 a fresh process will do better (EX_TEMPFAIL). Faust runs under
plain asyncio: its own worker redirects stdout and takes a minute to stop when the broker is gone.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..events.errors import BrokerUnavailable, RestartRequired, Unavailable, UserMistake
from ..settings import Settings
from .broker_watch import BrokerWatch
from .health import HealthFile
from .parts import Parts, Role, production_parts
from .probes import answer_probes
from .process_log import log_to_stderr

if TYPE_CHECKING:
    from .app import Worker

STOPPED, MISTAKE, UNAVAILABLE, BUG, RESTART = 0, 2, 69, 70, 75
ARRIVAL_SECONDS = 30.0
STOP_SECONDS = 10.0
FLUSH_SECONDS = 5.0
HEALTH_SECONDS = 1.0
WATCH_SECONDS = 2.0

log = logging.getLogger(__name__)


def run_worker(settings: Settings, role: Role) -> int:
    """Run this worker until it is told to stop; the exit status for the process."""
    _begin_log(settings, role)  # what the parts have to say is a line of it
    return run_process(settings, role, production_parts(settings, role))


def run_process(settings: Settings, role: Role, parts: Parts) -> int:
    """Run a worker of these parts in this process until SIGTERM, SIGINT or a failure.

    Only a stop that was asked for is orderly. After a failure, or when a stop does not come to its end in time, the
    process ends at once: that is what every restart must survive anyway, and with the broker gone the client's threads
    would keep it for a minute.
    """
    _begin_log(settings, role)
    return asyncio.run(_serve(settings, role, parts))


def _begin_log(settings: Settings, role: Role) -> None:
    # Faust's services log under the module of their class, and one of them is ours.
    log_to_stderr(role, settings.slot, settings.log_format, quiet=(f"{__package__}.transport",))


async def _serve(settings: Settings, role: Role, parts: Parts) -> int:
    watch = BrokerWatch(settings.log_access)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    try:
        return await _run(settings, role, parts, watch, told)
    except Exception as error:  # noqa: BLE001  # before the worker exists, every failure ends here
        return _status(error)
    finally:
        await watch.close()


async def _run(settings: Settings, role: Role, parts: Parts, watch: BrokerWatch, told: asyncio.Event) -> int:
    from .app import build_app

    arriving = asyncio.ensure_future(watch.arrive(ARRIVAL_SECONDS))
    telling = asyncio.ensure_future(told.wait())
    beginnings: set[asyncio.Future[Any]] = {arriving, telling}
    await asyncio.wait(beginnings, return_when=asyncio.FIRST_COMPLETED)
    if not arriving.done():
        arriving.cancel()
        return STOPPED
    worker = build_app(settings, role, arriving.result(), parts)
    health = HealthFile(settings.data_dir, role, settings.slot)
    tasks = _start(worker, watch, health, settings.probe_address)
    log.info("starting on %s, slot %s, epoch %d", settings.kafka, settings.slot, settings.log_epoch)
    endings: set[asyncio.Future[Any]] = {telling, worker.failed}
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    status = _status(worker.failed.exception()) if worker.failed.done() else STOPPED
    stopped = status == STOPPED and await _stop(worker, tasks)
    health.write("stopped", worker.shell.records, worker.shell.positions, {}, _last_error(worker))
    log.info("ended with status %d", status)
    if not stopped:
        logging.shutdown()
        os._exit(status)
    return status


def _start(worker: "Worker", watch: BrokerWatch, health: HealthFile, probe_address: str) -> list["asyncio.Task[None]"]:
    """Everything that runs beside the agent; whichever fails ends the process."""

    async def guarded(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  # whatever it is, it must end the process
            worker.fail(error)

    works = [
        worker.app.start(),
        _watch_broker(watch),
        _watch_app(worker),
        _report(worker, health),
        *([answer_probes(probe_address, lambda: health.last)] if probe_address else []),
        *(background() for background in worker.background),
    ]
    return [asyncio.ensure_future(guarded(work)) for work in works]


async def _watch_broker(watch: BrokerWatch) -> None:
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        await watch.check()


async def _watch_app(worker: "Worker") -> None:
    await worker.app.wait_until_stopped()
    reason = worker.app.crash_reason
    raise RestartRequired(f"Faust stopped: {type(reason).__name__}: {reason}") from reason


async def _report(worker: "Worker", health: HealthFile) -> None:
    while True:
        shell = worker.shell
        state = "running" if shell.positions else "waiting"
        health.write(state, shell.records, shell.positions, worker.ends, _last_error(worker))
        await asyncio.sleep(HEALTH_SECONDS)


async def _stop(worker: "Worker", tasks: list["asyncio.Task[None]"]) -> bool:
    """Whether everything came to its end in time. What was judged is written and acknowledged first: a task that was
    cancelled in the middle of a batch would leave all since the last flush to be decided again.
    """
    if not await _ends(worker.finish(), FLUSH_SECONDS):
        return False
    _, *background = tasks
    for task in background:
        task.cancel()
    return await _ends(worker.app.stop(), STOP_SECONDS)


async def _ends(work: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Whether this ends well within the time; it is not waited for any longer, as `wait_for` would, if it does not."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        log.error("the stop takes longer than %.0f s: ending at once", seconds)
    elif task.exception() is not None:
        log.error("the stop failed: %s: %s", type(task.exception()).__name__, task.exception())
    return task.done() and task.exception() is None


def _last_error(worker: "Worker") -> str:
    if worker.failed.done():
        return str(worker.failed.exception())
    return worker.shell.last_error


def _status(error: BaseException | None) -> int:
    match error:
        case UserMistake():
            log.error("%s", error)
            return MISTAKE
        case RestartRequired():
            log.error("restart: %s", error)
            return RESTART
        case Unavailable() | BrokerUnavailable():
            log.error("%s", error)
            return UNAVAILABLE
        case _:
            log.error("a bug ended this worker", exc_info=error)
            return BUG
