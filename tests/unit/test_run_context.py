"""Who a process is, found from what launchers leave behind."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from pilothouse.events.errors import UserMistake
from pilothouse.producers.beginning import Beginning, begin
from pilothouse.producers.ranks.context import (
    Lineage,
    Place,
    git_commit,
    known_run_id,
    place_of,
    read_lineage,
    restarts,
    script_folder,
)


@pytest.mark.parametrize(
    "environ,place",
    [
        ({}, Place(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Place(3, 8)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, Place(1, 2)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "16"}, Place(5, 16)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, Place(0, 1)),
        ({"RANK": "9", "WORLD_SIZE": "8"}, Place(0, 1)),
        ({"RANK": "x", "WORLD_SIZE": "8"}, Place(0, 1)),
    ],
)
def test_rank_and_world_size_come_from_the_launcher(environ: dict[str, str], place: Place) -> None:
    assert place_of(environ) == place


@pytest.mark.parametrize(
    "argument,environ,known",
    [
        ("mine", {"PILOTHOUSE_RUN_ID": "env", "SLURM_JOB_ID": "17"}, "mine"),
        (None, {"PILOTHOUSE_RUN_ID": "env", "SLURM_JOB_ID": "17"}, "env"),
        (None, {"SLURM_JOB_ID": "17", "TORCHELASTIC_RUN_ID": "t"}, "gpt-17"),
        (None, {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "20"}, "gpt-17_3"),
        (None, {"TORCHELASTIC_RUN_ID": "t"}, "saved"),
        (None, {"TORCHELASTIC_RUN_ID": "none"}, "saved"),
    ],
)
def test_the_run_id_comes_from_the_first_that_knows_one(
    argument: str | None, environ: Mapping[str, str], known: str
) -> None:
    assert known_run_id("gpt", argument, environ, Lineage("saved", "a", 2)) == known


@pytest.mark.parametrize(
    "launch, known",
    [("none", None), ("nightly", "gpt-nightly"), ("1f228e52-d2ff-4a37-b1df-8b66a6a663bb", "gpt-1f228e52")],
)
def test_a_run_that_torchrun_launches_keeps_its_name(launch: str, known: str | None) -> None:
    assert known_run_id("gpt", None, {"TORCHELASTIC_RUN_ID": launch}, None) == known


def test_a_lone_process_mints_a_run_id_from_its_name() -> None:
    one, two = (begin("gpt", None, Place(0, 1), {}).identity for _ in range(2))
    assert one.run_id.startswith("gpt-")
    assert one.run_id != two.run_id
    assert one.attempt_id != two.attempt_id


NODE = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "j"}


def derived(rank: int, world_size: int, **environ: str) -> Beginning:
    return begin("gpt", "job-1", Place(rank, world_size), NODE | environ)


def test_ranks_without_a_group_agree_by_what_their_launcher_told_all_of_them() -> None:
    """Agents of torchrun that were there before count restarts, one that came later does not."""
    first = {derived(rank, 4, TORCHELASTIC_RESTART_COUNT=str(rank % 2)).identity.attempt_id for rank in range(4)}
    assert len(first) == 1
    for again in (derived(0, 4, MASTER_PORT="29501"), derived(0, 3), derived(0, 4, SLURM_RESTART_COUNT="1")):
        assert again.identity.attempt_id not in first


def test_an_attempt_counts_on_from_its_checkpoint_and_from_what_the_launcher_restarted() -> None:
    saved = Lineage("job-1", "before", 4)
    assert begin("gpt", "job-1", Place(0, 1), {"SLURM_RESTART_COUNT": "1"}, saved)[0].attempt == 5
    resumed = begin("gpt", "job-1", Place(0, 1), {"SLURM_RESTART_COUNT": "6"}, saved)
    assert (resumed.identity.attempt, resumed.reason, resumed.parent) == (7, "restart", "before")
    alone = begin("gpt", None, Place(0, 1), {})
    assert (alone.identity.attempt, alone.reason, alone.parent) == (1, "start", None)


def test_a_run_that_one_process_begins_again_counts_on_also_from_what_it_rolled_back_to() -> None:
    run_id = f"job-{uuid4().hex}"
    first = begin("gpt", run_id, Place(0, 1), {})
    again = begin("gpt", run_id, Place(0, 1), {})
    assert (first.identity.attempt, first.reason, first.parent) == (1, "start", None)
    assert (again.identity.attempt, again.reason, again.parent) == (2, "restart", first.identity.attempt_id)
    assert again.host is not None
    again.host.note(Lineage(run_id, "rolled back", 3))
    third = begin("gpt", run_id, Place(0, 1), {})
    assert (third.identity.attempt, third.parent) == (4, "rolled back")


def test_ranks_that_cannot_agree_on_a_run_id_are_told_what_to_do() -> None:
    with pytest.raises(UserMistake, match=r"init_process_group.*PILOTHOUSE_RUN_ID"):
        begin("gpt", None, Place(1, 4), {})


@pytest.mark.parametrize("run_id", ["x" * 201, "a\nb"])
def test_a_run_id_that_cannot_be_one_is_refused(run_id: str) -> None:
    with pytest.raises(UserMistake, match="run_id must be"):
        begin("gpt", run_id, Place(0, 1), {})


def test_a_variable_that_can_be_no_run_id_is_said_and_the_next_that_knows_one_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert known_run_id("gpt", None, {"PILOTHOUSE_RUN_ID": "a\nb", "SLURM_JOB_ID": "17"}, None) == "gpt-17"
    (record,) = caplog.records
    assert "PILOTHOUSE_RUN_ID is no run id (1 to 200 printable characters)" in record.getMessage()


def test_restarts_are_what_the_launchers_count() -> None:
    assert restarts({"TORCHELASTIC_RESTART_COUNT": "2", "SLURM_RESTART_COUNT": "1"}) == 3


def test_a_sidecar_says_which_attempt_is_continued(tmp_path: Path) -> None:
    sidecar = tmp_path / "sidecar.json"
    sidecar.write_text(json.dumps({"run_id": "r", "attempt_id": "a", "attempt": 2, "step": 10}))
    assert read_lineage(sidecar) == Lineage("r", "a", 2)
    assert read_lineage(tmp_path / "none.json") is None


@pytest.mark.parametrize("attempt", ["-3", "0", "1e400", "99999999", '"two"', "null", '1, "run_id": ""'])
def test_a_sidecar_without_sense_is_said_and_not_continued(
    attempt: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sidecar = tmp_path / "sidecar.json"
    sidecar.write_text(f'{{"run_id": "r", "attempt_id": "a", "attempt": {attempt}}}')
    assert read_lineage(sidecar) is None
    (record,) = caplog.records
    assert str(sidecar) in record.getMessage()


def test_a_working_directory_that_is_gone_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    assert git_commit(script_folder()) == ""


def test_the_commit_is_read_from_git_itself(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs\nabc123 refs/heads/main\n")
    (tmp_path / "src").mkdir()
    assert git_commit(tmp_path / "src") == "abc123"
    (git / "refs" / "heads" / "main").write_text("def456\n")
    assert git_commit(tmp_path / "src") == "def456"
    (git / "HEAD").write_text("789abc\n")
    assert git_commit(tmp_path) == "789abc"


def test_no_repository_is_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert git_commit(tmp_path) == ""
