"""From `run.log` to the trainer that hears the command, by stage, beside a bare Faust agent on the same broker.

The SDK sends at its flush interval, so what is asked of the rest is counted from there: `control` is from the moment at
which the SDK takes a row up until its thread hears the command that the row led to.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .floor import IN, OUT
from .probes import POLICY
from .rig import Rig, quantile, until
from .throughput import arguments_of

STAGES = {
    "SDK: waits for its flush": ("logged", "taken"),
    "SDK: encodes, sends": ("taken", "sent"),
    "broker, and to the governor's fold": ("sent", "folded"),
    "governor: decides": ("folded", "published"),
    "control topic, to the SDK's thread": ("published", "heard"),
    "trainer: its next safe point": ("heard", "seen"),
    "control: all but the flush and the safe point": ("taken", "heard"),
    "from run.log to the safe point": ("logged", "seen"),
}
CONTROL = "control: all but the flush and the safe point"
NANOS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds by stage, (p50, p99); what was asked and never answered; and the floor."""

    broker: str
    rank_steps_per_s: float
    probes: int
    unanswered: int
    stages: dict[str, tuple[float, float]]
    floor: tuple[float, float]
    floor_stamps: int


def latency(broker: str, kafka_home: Path | None, seconds: float, load: Mapping[str, float] | None = None) -> Latency:
    """Probe a governor that has nothing else to do, or beside a load."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder, Rig(Path(folder), kafka_home) as rig:
        rig.make_topics(IN, OUT)
        rig.run("floor", "pilothouse.benchmarks.pipeline.floor", rig.broker.address, str(rig.folder / "floor"))
        policy = rig.folder / "policy.yaml"
        policy.write_text(POLICY)
        rig.governor(policy=policy, timed=rig.folder / "governor.jsonl").until_running()
        if load:
            rig.generator(*arguments_of({**load, "seconds": seconds + 60.0}))
        embedded = () if rig.broker.keeps_log else ("--embedded",)
        options = (rig.broker.address, str(rig.folder), "--seconds", str(seconds), "--floor", *embedded)
        child = rig.run("probes", "pilothouse.benchmarks.pipeline.probes", *options)
        until(lambda: not child.alive, "the probes are through", seconds + 120.0)
        if child.exit_status != 0:
            raise RuntimeError("\n".join(["the probes failed:", *child.last_lines()]))
        offered = load["runs"] * load["ranks"] * load["steps_per_second"] if load else 0.0
        return _told(broker, offered, rig.folder)


def _told(broker: str, offered: float, folder: Path) -> Latency:
    probes = _lines(folder / "probes.jsonl")
    governor = {line["command"]: line for line in _lines(folder / "governor.jsonl")}
    answered = [{**governor.get(probe["command"], {}), **probe} for probe in probes if probe["heard"]]
    stages = {name: _quantiles(_between(answered, *ends)) for name, ends in STAGES.items()}
    floor = [float(line) for line in (folder / "floor.txt").read_text().split()]
    return Latency(broker, offered, len(probes), len(probes) - len(answered), stages, _quantiles(floor), len(floor))


def _between(probes: list[dict[str, Any]], begin: str, end: str) -> list[float]:
    return [(one[end] - one[begin]) / NANOS_PER_MS for one in probes if one.get(begin) and one.get(end)]


def _quantiles(values: list[float]) -> tuple[float, float]:
    return quantile(values, 0.5), quantile(values, 0.99)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
