"""Training scripts that die, as a program: `python -m pilothouse.tests.dying_trainers`.

Each line of its input is a list of `Death`s. For each a process is forked, which spares every one of them the imports;
it begins a run and logs a step every millisecond, leaving each on its `tape` before the next. "running" is said when
all of them log, "over" when all are dead: by SIGKILL from here, or by `os._exit`, so many seconds after "running".
"""

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

SPOKEN = struct.Struct("<qqq")
"""What stands on a tape: how many steps were logged, and when (microseconds UTC) the first and the last were."""

Way = Literal["kill", "exit"]


@dataclass(frozen=True)
class Death:
    """One trainer and its end. `flush` is its flush interval, `after` when it dies; both in seconds."""

    run_id: str
    kafka: str
    folder: str
    flush: float
    way: Way
    after: float

    @property
    def tape(self) -> Path:
        return Path(self.folder) / f"{self.run_id}.tape"

    def spoken(self) -> tuple[int, int, int]:
        """How many steps it logged, the time of the first and of the last."""
        logged, first, last = SPOKEN.unpack(self.tape.read_bytes()[: SPOKEN.size])
        return logged, first, last


class Trainers:
    """The program, from outside: `running` begins a phase, `over` waits for its end."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def running(self, deaths: Sequence[Death]) -> None:
        assert self._process.stdin is not None
        print(json.dumps([asdict(death) for death in deaths]), file=self._process.stdin, flush=True)
        self._expect("running")

    def over(self) -> None:
        self._expect("over")

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n", self._process.communicate()[1]


@contextmanager
def trainers() -> Iterator[Trainers]:
    """The program, until it is left."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Trainers(process)
        finally:
            process.kill()


# ------------------------------------------------------------------------------------------------------- the program


def _main() -> None:
    import kafka  # noqa: F401  # once, for all

    import pilothouse.producers.run  # noqa: F401  # the same

    for line in sys.stdin:
        _phase([Death(**one) for one in json.loads(line)])


def _phase(deaths: Sequence[Death]) -> None:
    with ExitStack() as tapes:
        mapped = {death: tapes.enter_context(_tape(death)) for death in deaths}
        children = {death: _forked(death, mapped) for death in deaths}
        while not all(SPOKEN.unpack(tape[: SPOKEN.size])[0] for tape in mapped.values()):
            time.sleep(0.005)
        begun = time.monotonic()
        for tape in mapped.values():
            tape[SPOKEN.size :] = struct.pack("<d", begun)
        _say("running")
        for death in sorted(deaths, key=lambda death: death.after):
            time.sleep(max(0.0, begun + death.after - time.monotonic()))
            if death.way == "kill":
                os.kill(children[death], signal.SIGKILL)
        for pid in children.values():
            os.waitpid(pid, 0)
    _say("over")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


@contextmanager
def _tape(death: Death) -> Iterator[mmap.mmap]:
    death.tape.write_bytes(bytes(SPOKEN.size + 8))
    with death.tape.open("r+b") as file, mmap.mmap(file.fileno(), 0) as tape:
        yield tape


def _forked(death: Death, tapes: "dict[Death, mmap.mmap]") -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _train(death, tapes[death])
    finally:
        os._exit(1)


def _train(death: Death, tape: Any) -> None:
    import pilothouse
    from pilothouse.settings import Settings

    settings = Settings(
        kafka=death.kafka, data_dir=Path(death.folder), producer_flush_seconds=death.flush, resources_seconds=0
    )
    run = pilothouse.start_run("dying", run_id=death.run_id, settings=settings)
    first = time.time_ns() // 1_000
    for step in range(100_000):
        run.log(step, loss=1.0)
        SPOKEN.pack_into(tape, 0, step + 1, first, time.time_ns() // 1_000)
        (begun,) = struct.unpack("<d", tape[SPOKEN.size :])
        if death.way == "exit" and begun and time.monotonic() >= begun + death.after:
            os._exit(0)
        time.sleep(0.001)


if __name__ == "__main__":
    _main()
