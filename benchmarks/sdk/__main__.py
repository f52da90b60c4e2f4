"""`python -m benchmarks.sdk` (`make bench-sdk`): what one logged step costs, ours beside the others, in one run.

Every contestant logs the same events in a process of its own, and all of them wait while one works: blocks take turns,
round by round, so that whatever else the machine does hits all alike. *Hot* is a call in a loop; *cold* a call after
2 ms of real work, which leaves the caches to itself; *tax* what such a step takes longer with the call than without,
from neighbouring blocks; *CPU* counts all threads and child processes until everything is sent or written. What the
row `no-op` shows is the harness itself.

The broker is one of ours (`pilothouse.cli.brokers.EmbeddedBroker`), or the one that PILOTHOUSE_KAFKA names. Prints a
table and our ratio to the cheapest tracker; writes `{"rows": [...]}` with `--json FILE`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .contestants import CLIENT, CONTESTANTS, OURS, TOPIC, TRACKER
from .step import calibrated_turns
from .table import Row, lines, ratios, row_of

PARTITIONS = 4
END_SECONDS = 20.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Worker:
    """The driver's end of one `benchmarks.sdk.worker`."""

    def __init__(self, name: str, folder: Path, address: str, turns: int) -> None:
        self.name = name
        self.blocks: dict[str, list[dict[str, Any]]] = {"hot": [], "plain": [], "logged": []}
        (folder / "data").mkdir(parents=True)
        self._log = (folder / "worker.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", name, str(folder / "data"), address, str(turns)],
            env=os.environ | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        answer = self._answer()
        self.missing: str = answer.get("missing", "")
        self.release: str = answer.get("version", "")

    def block(self, kind: str, count: int) -> None:
        """Have one block done and keep what it measured; a contestant that fails is out, and says why."""
        if self.missing:
            return
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {count}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.missing = answer.get("missing", "")
        self.blocks[kind].append(answer)

    def end(self) -> None:
        """Let it close what it opened, and go."""
        try:
            self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        tail = Path(self._log.name).read_text(errors="replace").strip().splitlines()[-1:]
        return {"missing": f"its process ended with {self._process.wait()}: {' '.join(tail)[:160]}"}


def main(arguments: list[str]) -> int:
    """Measure; 0 if everything could be."""
    options = _options(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder,
        broker(Path(folder), options.names) as address,
    ):
        workers = measured(options, Path(folder), address)
    rows = [row_of(worker.name, worker.blocks) for worker in workers if not worker.missing]
    report(rows, workers)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        setting = {"rounds": options.rounds, "steps": options.steps, "missing": _missing(workers)}
        options.json.write_text(
            json.dumps({"rows": [row._asdict() for row in rows], "setting": setting}, indent=1) + "\n"
        )
    return 1 if _missing(workers) else 0


def measured(options: argparse.Namespace, folder: Path, address: str) -> list[Worker]:
    """All contestants, block by block in turn."""
    turns = calibrated_turns()
    with ExitStack() as ends:
        workers: list[Worker] = []
        for number, name in enumerate(options.names):
            workers.append(Worker(name, folder / str(number), address, turns))
            ends.callback(workers[-1].end)
            print(f"{name}: {workers[-1].missing or 'opened'}", file=sys.stderr, flush=True)
        for number in range(options.rounds + 1):
            for worker in workers:
                for kind in ("hot", "plain", "logged") if number % 2 else ("hot", "logged", "plain"):
                    worker.block(kind, options.steps)
            if number == 0:  # the first round warms up
                for worker in workers:
                    worker.blocks = {kind: [] for kind in worker.blocks}
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    return workers


def report(rows: list[Row], workers: list[Worker]) -> None:
    print("\n".join(lines(rows, {worker.name: worker.release for worker in workers})))
    for name, why in _missing(workers).items():
        print(f"not measured: {name} ({why})")
    kinds = {name: entry.kind for name, entry in CONTESTANTS.items()}
    ours, trackers = [[row for row in rows if kinds[row.name] == kind] for kind in (OURS, TRACKER)]
    if ours and trackers:
        print("\n".join(("ours, beside the cheapest of the trackers:", *ratios(ours[0], trackers))))


def _missing(workers: list[Worker]) -> dict[str, str]:
    return {worker.name: worker.missing for worker in workers if worker.missing}


@contextmanager
def broker(folder: Path, names: list[str]) -> Iterator[str]:
    """The address of a broker with our topics; none is started where nobody needs one."""
    if not any(CONTESTANTS[name].kind in (OURS, CLIENT) for name in names):
        yield ""
        return
    from pilothouse.cli.brokers import EmbeddedBroker
    from pilothouse.cli.topic_admin import admin_client, create_topics

    named = os.environ.get("PILOTHOUSE_KAFKA")
    own = EmbeddedBroker(folder / "broker") if not named else None
    if own is not None:
        own.start()
    try:
        address = named or (own.address if own is not None else "")
        create_topics(address, PARTITIONS, replication=1)
        with admin_client(address, 10.0) as client:
            client.create_topics({TOPIC: {"num_partitions": PARTITIONS, "replication_factor": 1}}, raise_errors=False)
        yield address
    finally:
        if own is not None:
            own.stop()


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CONTESTANTS), help="who is measured [all]")
    parser.add_argument("--rounds", type=int, default=8, help="of blocks [%(default)s]")
    parser.add_argument("--steps", type=int, default=300, help="of each block [%(default)s]")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in CONTESTANTS]:
        parser.error(f"there is no {', '.join(unknown)}; there are: {', '.join(CONTESTANTS)}")
    if options.rounds < 1 or options.steps < 1:
        parser.error("at least 1 round and 1 step")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
