"""`python -m benchmarks.idle` (`make bench-idle`): what a stack costs that has nothing to do.

Starts `pilothouse up`, lets it settle, and counts the CPU time of each of its processes, threads included, for
`--seconds`. Prints CPU seconds a minute and the resident memory at the end.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pilothouse.cli.demo.stack import DemoStack
from pilothouse.cli.stack_file import told_by_stack


def main(arguments: list[str]) -> int:
    """Measure once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is watched")
    parser.add_argument("--settle", type=float, default=15.0, help="how long it is left alone before")
    parser.add_argument("--kafka-home", type=Path, help="Apache Kafka of one's own in place of the embedded broker")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="pilothouse-idle-") as folder,
        DemoStack(Path(folder), options.kafka_home) as stack,
    ):
        pids: dict[str, int] = told_by_stack(stack.data_dir)["pids"]
        processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        time.sleep(options.settle)
        before = {name: _cpu_seconds(process) for name, process in processes.items()}
        time.sleep(options.seconds)
        print(f"{'process':<12} CPU s a minute      MiB")
        total = 0.0
        for name, process in processes.items():
            a_minute = (_cpu_seconds(process) - before[name]) * 60 / options.seconds
            total += a_minute
            print(f"{name:<12} {a_minute:14.1f} {process.memory_info().rss / 2**20:8.0f}")
        print(f"{'all':<12} {total:14.1f}  ({total / 0.6:.0f}% of one core)")
    return 0


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
