"""Real ranks under torch.distributed: all apply the same thing at the same step, or none does, and nobody waits for the
dead.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pilothouse.cli.brokers import free_port

WORLD = 4
Seen = dict[str, Any]


class Ended(NamedTuple):
    status: int
    seen: Seen
    stderr: str


def train(scenario: str, world: int, folder: Path, faults: str = "") -> list[Ended]:
    """Run a scenario of `tests/pilot_ranks.py` on its ranks; what each saw. A rank that hangs fails the test."""
    program = [
        sys.executable,
        "-m",
        "pilothouse.tests.pilot_ranks",
        scenario,
        str(world),
        str(free_port()),
        str(folder),
    ]
    process = subprocess.Popen(program, env=os.environ | {"FAULTS": faults}, start_new_session=True)
    try:
        process.wait(120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return [
        Ended(status, json.loads(path.read_text()) if path.exists() else {}, path.with_suffix(".err").read_text())
        for status, path in zip(
            json.loads((folder / f"{scenario}.json").read_text()),
            (folder / f"{scenario}-{n}.json" for n in range(world)),
            strict=True,
        )
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ended(folder: Path) -> list[Ended]:
    ended = train("steered", WORLD, folder)
    assert [rank.status for rank in ended] == [0] * WORLD, "\n".join(rank.stderr[-2_000:] for rank in ended)
    return ended


@pytest.fixture(scope="module")
def ranks(ended: list[Ended]) -> list[Seen]:
    return [rank.seen for rank in ended]


def receipts(rank: Seen, intervention_id: str) -> list[Seen]:
    return [
        fields | {"attempt_id": attempt_id}
        for kind, attempt_id, fields in rank["told"]
        if kind == "intervention_receipt" and fields["intervention_id"] == intervention_id
    ]


def told(rank: Seen, kind: str) -> list[Seen]:
    return [fields for name, _, fields in rank["told"] if name == kind]


def row_of(rank: Seen, column: int) -> Callable[[int], Any]:
    """The value of a column at the first time that a step was reached."""
    return lambda step: next(row[column] for row in rank["rows"] if row[0] == step)


@pytest.mark.parametrize("number", [1, 4, 5, 7, 9, 10, 11, 13, 14, 17])
def test_every_rank_applies_it_at_the_same_step_and_says_so_once(ranks: list[Seen], number: int) -> None:
    given = [receipts(rank, f"i-{number}") for rank in ranks]
    assert [[receipt["outcome"] for receipt in mine] for mine in given] == [["applied"]] * WORLD
    assert len({mine[0]["step"] for mine in given}) == 1
    numbers = [(mine[0]["before"], mine[0]["after"].keys()) for mine in given]
    assert numbers == [numbers[0]] * WORLD


def test_the_optimizer_steps_with_the_scaled_rate_from_the_next_step_on_and_the_scheduler_never_sees_it(
    ranks: list[Seen],
) -> None:
    for rank in ranks:
        agreed = receipts(rank, "i-1")[0]["step"]
        own, used = row_of(rank, 2), row_of(rank, 3)
        assert own(agreed + 1) == pytest.approx(0.01 * 0.99 ** (agreed + 1), rel=1e-12)
        assert used(agreed) == own(agreed)
        assert used(agreed + 1) == own(agreed + 1) * 0.5


def test_what_one_rank_refuses_nobody_applies_and_all_say_who_and_why(ranks: list[Seen]) -> None:
    for rank in ranks:
        (receipt,) = receipts(rank, "i-2")
        assert receipt["outcome"] == "rejected"
        assert receipt["reason"] == "rank 2: clip = 5 is outside this trainer's 0 to 2"
        assert all(row[4] != 5.0 for row in rank["rows"])


def test_a_setter_that_raises_on_one_rank_is_undone_on_all(ranks: list[Seen]) -> None:
    for rank in ranks:
        (receipt,) = receipts(rank, "i-3")
        assert receipt["outcome"] == "failed"
        assert receipt["reason"] == "RuntimeError: the optimizer has no such option (rank 1)"
        assert row_of(rank, 4)(receipt["step"]) == 1.0


def test_before_a_knob_is_set_one_more_checkpoint_is_saved_whether_the_setter_raises_or_not(ranks: list[Seen]) -> None:
    saved = [fields["step"] for fields in told(ranks[0], "checkpoint_saved")]
    assert {receipts(ranks[0], name)[0]["step"] for name in ("i-3", "i-4")} <= set(saved)
    assert not any(told(rank, "checkpoint_saved") for rank in ranks[1:])


def test_a_checkpoint_that_is_corrupt_on_one_rank_is_restored_on_none(ranks: list[Seen]) -> None:
    for rank in ranks:
        (receipt,) = receipts(rank, "i-6")
        assert receipt["outcome"] == "failed"
        assert receipt["reason"].startswith("CheckpointCorrupt: step-00000020-attempt1/model.pt")
        assert receipt["reason"].endswith("(rank 1)")
        steps = [row[0] for row in rank["rows"]]
        assert steps[: receipt["step"] + 2] == list(range(receipt["step"] + 2))
        assert row_of(rank, 5)(receipt["step"]) == 0.5


def test_a_rollback_brings_every_rank_back_bit_for_bit(ranks: list[Seen]) -> None:
    for rank in ranks:
        (receipt,) = receipts(rank, "i-7")
        back = next(row for row in rank["rows"] if row[7] is not None)
        assert (back[0], back[7]) == (receipt["step"], 40)
        saved_as = row_of(rank, 6)(40)
        assert back[6] == saved_as
        assert row_of(rank, 6)(receipt["step"] - 1) != saved_as


def test_after_a_rollback_the_steps_go_back_the_data_goes_on_and_the_rate_is_cut(ranks: list[Seen]) -> None:
    for rank in ranks:
        rows = rank["rows"]
        at = next(number for number, row in enumerate(rows) if row[7] is not None)
        (skipped,) = [fields for fields in told(rank, "data_window_skipped") if fields["intervention_id"] == "i-7"]
        assert rows[at + 1][0] == 41
        assert (skipped["first_batch"], skipped["last_batch"]) == (rows[at][1], rows[at][1] + 4)
        assert rows[at + 1][1] == rows[at][1] + 5 + 1
        assert (rows[at][5], receipts(rank, "i-7")[0]["before"]["lr_multiplier"]) == (0.25, 0.5)


def test_a_rollback_begins_an_attempt_that_every_rank_derives_alike(ranks: list[Seen]) -> None:
    begun = [told(rank, "attempt") for rank in ranks]
    assert begun == [[{"reason": "rollback", "first_step": 41, "parent": "attempt-1"}]] * WORLD
    assert {receipts(rank, "i-7")[0]["attempt_id"] for rank in ranks} == {"attempt-1"}
    assert len({receipts(rank, "i-9")[0]["attempt_id"] for rank in ranks} - {"attempt-1"}) == 1
    assert [len(told(rank, "checkpoint_restored")) for rank in ranks] == [1] * WORLD


def test_a_command_for_the_attempt_that_was_given_up_is_refused_by_rank_0(ranks: list[Seen]) -> None:
    (receipt,) = receipts(ranks[0], "i-8")
    assert (receipt["outcome"], receipt["reason"].partition(":")[0]) == ("rejected", "Stale")


def test_of_two_commands_at_once_every_rank_applies_the_first_and_then_the_second(ranks: list[Seen]) -> None:
    for rank in ranks:
        assert receipts(rank, "i-4")[0]["step"] < receipts(rank, "i-5")[0]["step"] < 60


def test_a_command_that_is_heard_after_its_time_is_applied_by_nobody(ranks: list[Seen]) -> None:
    (receipt,) = receipts(ranks[0], "i-12")
    assert (receipt["outcome"], receipt["reason"].partition(":")[0]) == ("expired", "Expired")
    assert not any(receipts(rank, "i-12") for rank in ranks[1:])
    assert {rank["rows"][-1][5] for rank in ranks} == {0.25}


def test_what_is_put_back_is_put_back_by_every_rank_at_the_same_step_to_what_it_was(ranks: list[Seen]) -> None:
    for rank in ranks:
        (turned,), (back,) = receipts(rank, "i-13"), receipts(rank, "i-14")
        assert (turned["before"], turned["after"]) == ({"weight_decay": 0.01}, {"weight_decay": 0.25})
        assert (back["before"], back["after"]) == (turned["after"], turned["before"])
        again = next(number for number, row in enumerate(rank["rows"]) if row[7] is not None) + 1
        decays = {row[0]: row[8] for row in rank["rows"][again:]}
        assert {decay for step, decay in decays.items() if turned["step"] <= step < back["step"]} == {0.25}
        assert {decay for step, decay in decays.items() if step >= back["step"]} == {0.01}


def test_what_was_changed_since_is_put_back_by_nobody(ranks: list[Seen]) -> None:
    (receipt,) = receipts(ranks[0], "i-15")
    assert receipt["outcome"] == "rejected"
    assert receipt["reason"].startswith("Changed: lr_multiplier is 0.25, and was left at 0.5")
    assert not any(receipts(rank, "i-15") for rank in ranks[1:])


def test_a_setter_that_raises_on_one_rank_while_it_is_put_back_is_undone_on_all(ranks: list[Seen]) -> None:
    for rank in ranks:
        (receipt,) = receipts(rank, "i-16")
        assert receipt["outcome"] == "failed"
        assert receipt["reason"] == "RuntimeError: the optimizer has no such option (rank 1)"
        assert row_of(rank, 4)(receipt["step"]) == 0.5


def test_a_persons_stop_that_a_rollback_overtook_still_stops_every_rank(ranks: list[Seen]) -> None:
    given = [receipts(rank, "i-17")[0] for rank in ranks]
    assert [receipt["outcome"] for receipt in given] == ["applied"] * WORLD
    assert len({receipt["attempt_id"] for receipt in given} - {"attempt-1"}) == 1


def test_a_pause_holds_all_ranks_and_resume_lets_them_go_at_the_step_where_they_stood(ranks: list[Seen]) -> None:
    for rank in ranks:
        assert "paused" in rank["stages"]
        assert receipts(rank, "i-10")[0]["step"] == receipts(rank, "i-9")[0]["step"]
        assert receipts(rank, "i-10")[0]["after"]["paused_seconds"] > 0


def test_a_stop_ends_the_loop_of_every_rank_at_the_same_step_with_a_last_checkpoint(ranks: list[Seen]) -> None:
    agreed = receipts(ranks[0], "i-17")[0]["step"]
    assert [rank["rows"][-1][0] for rank in ranks] == [agreed] * WORLD
    assert [rank["outcome"] for rank in ranks] == ["stopped"] * WORLD
    assert told(ranks[0], "checkpoint_saved")[-1]["step"] == agreed


def test_ranks_hold_the_same_model_all_the_way(ranks: list[Seen]) -> None:
    multipliers = [[row[5] for row in rank["rows"]] for rank in ranks]
    steps = [[row[0] for row in rank["rows"]] for rank in ranks]
    assert multipliers == [multipliers[0]] * WORLD
    assert steps == [steps[0]] * WORLD


def test_an_ordinary_end_leaves_no_noise(ended: list[Ended]) -> None:
    assert [rank.stderr for rank in ended] == [""] * WORLD


def test_ranks_that_follow_what_was_applied_train_the_same_run_bit_for_bit(ranks: list[Seen]) -> None:
    """At their own pace, which is another; keeping one checkpoint, and that which the rollback wants."""
    for rank in ranks:
        again = rank["followed"]
        assert again["fault"] == ""
        assert again["rows"] == rank["rows"]
        assert again["outcome"] == "stopped"


@pytest.mark.parametrize("number", [1, 4, 5, 7, 11, 13, 14, 17])
def test_what_is_followed_is_answered_by_every_rank_at_the_same_step(ranks: list[Seen], number: int) -> None:
    for rank in ranks:
        (first,), (second,) = receipts(rank, f"i-{number}"), receipts(rank["followed"], f"i-{number}")
        names = ("outcome", "step", "before", "after")
        assert [second[name] for name in names] == [first[name] for name in names]


def test_who_follows_can_be_stopped_by_a_person_and_asked_nothing_else(ranks: list[Seen]) -> None:
    assert ranks[0]["followed"]["steers"] == ["pause", "resume", "stop", "notify"]
    assert set(ranks[0]["followed"]["steers"]) < set(ranks[0]["steers"])


def test_a_restart_with_fewer_ranks_goes_on_from_the_newest_checkpoint(ranks: list[Seen], folder: Path) -> None:
    last = told(ranks[0], "checkpoint_saved")[-1]
    ended = train("restarted", 2, folder)
    for number, rank in enumerate(ended):
        assert rank.status == 0, rank.stderr
        assert rank.seen["step"] == last["step"]
        assert (rank.seen["multiplier"], rank.seen["clip"]) == (0.25, 0.5)
        assert rank.seen["digest"] == ranks[number]["rows"][-1][6]
        position = ranks[number]["rows"][-1][1]
        assert rank.seen["positions"] == [[last["step"] + n, position + n] for n in (1, 2)]
        (begun,) = told(rank.seen, "attempt")
        assert (begun["reason"], begun["first_step"]) == ("restart", last["step"] + 1)


def test_a_killed_rank_holds_nobody_up_and_what_it_did_not_confirm_is_not_applied(tmp_path: Path) -> None:
    living, killed = train("lonely", 2, tmp_path, faults="sigkill@safe_point/60/1")
    assert (living.status, killed.status) == (0, -9), living.stderr
    assert living.seen["slowest"] < 3.0
    assert receipts(living.seen, "i-1")[0]["outcome"] == "applied"
    (given_up,) = receipts(living.seen, "i-2")
    assert given_up["outcome"] in ("expired", "failed")


def test_when_rank_0_is_killed_the_others_train_on_unsteered(tmp_path: Path) -> None:
    killed, living = train("lonely", 2, tmp_path, faults="sigkill@safe_point/60/0")
    assert (killed.status, living.status) == (-9, 0), living.stderr
    assert living.seen["slowest"] < 3.0
    assert living.seen["over"]
    assert "steering is over, training goes on" in living.stderr
