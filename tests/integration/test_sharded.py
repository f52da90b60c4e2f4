"""A model that `fully_shard` has spread over two real ranks: saved whole, restored on each, clipped as one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pilothouse.cli.brokers import free_port
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.checkpoints.trainer_state import TrainerState
from pilothouse.tests.sharded_ranks import layers

Seen = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    answer = subprocess.run(
        [sys.executable, "-m", "pilothouse.tests.sharded_ranks", str(free_port()), str(folder)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    said = [line for line in answer.stderr.splitlines() if line.startswith("pilothouse")]
    assert all("no checkpoints and no rollback for this model: FullyShardedDataParallel" in line for line in said)
    assert len(said) == 2
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[Seen]:
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_every_order_is_carried_out_by_both_ranks_at_the_same_step(ranks: list[Seen]) -> None:
    given = [[(told["intervention_id"], told["outcome"], told["step"]) for told in rank["receipts"]] for rank in ranks]
    assert given[0] == given[1]
    assert [outcome for _, outcome, _ in given[0]] == ["applied"] * 10


def test_what_was_ordered_is_what_each_rank_trains_with(ranks: list[Seen]) -> None:
    for rank in ranks:
        scaled, skip = rank["receipts"][3]["step"], rank["receipts"][6]
        rates = [row["lr"] for _, row in rank["rows"]]
        assert (rates[0], rates[-1], rank["weight_decay"], rank["dropout"]) == (0.05, 0.025, 0.2, 0.1)
        assert rates.count(0.025) == rank["receipts"][9]["step"] - scaled
        (window,) = rank["skipped"]
        skipped = range(window["first_batch"], window["last_batch"] + 1)
        assert (len(skipped), window["intervention_id"]) == (3, skip["intervention_id"])
        assert rank["batches"] == [number for number in range(rank["batches"][-1] + 1) if number not in skipped]
        assert rank["stages"][rank["stages"].index("paused") + 1] == "train"
        assert rank["receipts"][7]["step"] == rank["receipts"][8]["step"]


def test_a_rollback_gives_each_rank_its_part_of_the_weights_and_moments_back(ranks: list[Seen]) -> None:
    saved = ranks[0]["saved"][0]["step"]
    for rank in ranks:
        first, second = [shards for step, shards in rank["after"] if step == saved]
        assert first == second
    assert ranks[0]["after"][saved][1] != ranks[1]["after"][saved][1]


def test_the_norm_that_is_logged_is_this_ranks_and_the_clip_is_by_the_norm_of_all(ranks: list[Seen]) -> None:
    local = [[row.get("local_grad_norm") for _, row in rank["rows"]] for rank in ranks]
    whole = ranks[0]["norms"]
    assert (local[0][0] ** 2 + local[1][0] ** 2) ** 0.5 == pytest.approx(whole[0], rel=1e-5)
    clipped_from = ranks[0]["receipts"][1]["step"] + 1
    seen = [row.get("grad_norm") for _, row in ranks[0]["rows"]]
    assert [norm is None for norm in seen] == [number < clipped_from for number in range(len(seen))]
    assert seen[clipped_from:] == pytest.approx(whole[clipped_from:], rel=1e-5)


def test_its_checkpoint_fits_a_model_that_is_not_spread_at_all(folder: Path, ranks: list[Seen]) -> None:
    model = layers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    ref = next(
        ref for ref in Checkpoints(folder / "checkpoints").newest_first() if ref.step == ranks[0]["saved"][0]["step"]
    )
    state = TrainerState(model, [optimizer], [])
    state.install(state.prepare(Checkpoints(folder / "checkpoints").load(ref)[1], rank=0))
    parts = [next(shards for step, shards in rank["after"] if step == ref.step) for rank in ranks]
    tensors = [*model.parameters(), *(values["exp_avg"] for values in optimizer.state.values())]
    assert [tensor.detach().flatten().tolist() for tensor in tensors] == [a + b for a, b in zip(*parts, strict=True)]


def test_what_ddp_measures_of_its_communication_is_in_the_rows(ranks: list[Seen]) -> None:
    for rank in ranks:
        told = {step: row["comm_s"] for step, row in rank["ddp"]["rows"] if "comm_s" in row}
        assert set(range(1, 9)) <= set(told)
        assert all(0.0 < took < 30.0 for took in told.values())
        assert len(rank["ddp"]["rows"]) == 40
        assert all(
            {"loss", "grad_norm", "lr", "data_wait_s", "compute_s"} <= set(row) for _, row in rank["ddp"]["rows"]
        )
    norms = [[row["grad_norm"] for _, row in rank["ddp"]["rows"]] for rank in ranks]
    assert norms[0] == norms[1]


def test_a_model_whose_state_is_in_flat_parts_is_steered_without_checkpoints(ranks: list[Seen]) -> None:
    for rank in ranks:
        flat = rank["flat"]
        assert {"scale_lr", "set_weight_decay", "skip_batches", "stop"} <= set(flat["steers"])
        assert not {"checkpoint_now", "rollback", "set_clip"} & set(flat["steers"])
        assert [told["outcome"] for told in flat["receipts"]] == ["applied"] * 2
        assert (flat["rows"][0][1]["lr"], flat["rows"][-1][1]["lr"]) == (0.05, 0.025)
        assert all("local_grad_norm" in row and "grad_norm" not in row for _, row in flat["rows"])
