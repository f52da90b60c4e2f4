"""The benchmark's rules beside their originals, where those are installed."""

import math
import random
from pathlib import Path

import pytest
import torch

from pilothouse.benchmarks.detection import peers
from pilothouse.benchmarks.detection.series import Series

LOSSES = [
    [4.0 + random.Random(seed).gauss(0.0, 0.2), math.nan, 3.0, 30.0, 3.1, *(
        random.Random(seed + row).choice([3.0, 3.2, 2.9, 12.0, 9.5, 40.0, math.inf, -1.0, -7.0]) for row in range(80)
    )]
    for seed in (1, 200)
]  # fmt: skip


# What it and what it imports warn of is theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("losses", LOSSES)
def test_lightning_alarms_where_our_copy_of_it_does(losses: list[float], tmp_path: Path) -> None:
    # Half of what the whole suite would take to be collected: not for whoever runs something else.
    from lightning.fabric import Fabric
    from lightning.fabric.utilities.spike import SpikeDetection, TrainingSpikeException

    fabric = Fabric(accelerator="cpu", devices=1)
    original = SpikeDetection(exclude_batches_path=str(tmp_path / "batches.json"))
    alarms = []
    for batch, loss in enumerate(losses):
        try:
            original.on_train_batch_end(fabric, torch.tensor(loss, dtype=torch.float64), None, batch)
        except TrainingSpikeException:
            alarms.append(batch)
    rows = list(range(len(losses)))
    ours = Series("one", "made", "group", rows, [float(row) for row in rows], [{"loss": losses}])
    assert list(peers.RULES["Lightning SpikeDetection"](ours)) == alarms
    assert len(alarms) > 10
