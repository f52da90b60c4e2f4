"""Other trackers' logs, written by their own libraries (`tests/logs_of_others`), as they come out of our readers."""

import gzip
import json
import math
import shutil
import sqlite3
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from pilothouse.events.errors import FileRefused
from pilothouse.storage.imports.arranging import Evaluation, Row, Sample, arranged
from pilothouse.storage.imports.finding import Format, find
from pilothouse.storage.imports.source import Source
from pilothouse.storage.imports.survey import survey

LOGS = Path(__file__).parents[1] / "logs_of_others"
STEPS, NAN_AT, INF_AT = 30, 17, 23


def loss(step: int) -> float:
    return math.nan if step == NAN_AT else math.inf if step == INF_AT else 2.0 / (step + 1)


def as_single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(LOGS, tmp_path / "logs")
    database = tmp_path / "logs" / "mlflow" / "mlflow.db"
    database.write_bytes(gzip.decompress(database.with_name("mlflow.db.gz").read_bytes()))
    return tmp_path / "logs"


def only(path: Path, form: Format | None = None) -> Source:
    found = find(path, form)
    assert not found.refused
    [source] = found.sources
    return source


def rows_of(source: Source) -> list[Row]:
    naming = survey(source, {}).naming
    return [told for told in arranged(source.items(), naming) if isinstance(told, Row)]


def evaluations_of(source: Source) -> list[Evaluation]:
    naming = survey(source, {}).naming
    return [told for told in arranged(source.items(), naming) if isinstance(told, Evaluation)]


def test_all_of_them_are_found_and_known_for_what_they_are(logs: Path) -> None:
    found = find(logs)
    assert not found.refused
    assert sorted((source.format, source.name.split("-")[0]) for source in found.sources) == [
        ("huggingface", "huggingface"),
        ("lightning", "lightning.version_0"),
        ("mlflow", "failed"),
        ("mlflow", "well"),
        ("mlflow", "well"),
        ("tensorboard", "tensorboard"),
        ("wandb", "well"),
    ]
    assert {source.format for source in find(logs, Format.WANDB).sources} == {"wandb"}


LOSSES = {
    "lightning": ("lightning/version_0/metrics.csv", "train_loss"),
    "mlflow folder": ("mlflow/mlruns", "loss"),
    "tensorboard": ("tensorboard", "loss"),
    "wandb": ("wandb/run-well0001.wandb", "train/loss"),
}


@pytest.mark.parametrize("tracker", LOSSES)
def test_every_step_and_value_comes_out_as_it_was_logged(logs: Path, tracker: str) -> None:
    path, name = LOSSES[tracker]
    rows = rows_of(only(logs / path))[:STEPS]
    assert [row.step for row in rows] == list(range(STEPS))
    single = tracker == "tensorboard"  # it keeps 32 bits
    expected = [as_single(loss(step)) if single else loss(step) for step in range(STEPS)]
    assert [repr(row.values[name]) for row in rows] == list(map(repr, expected))
    assert all(row.values["lr"] == pytest.approx(0.001 * (1 - row.step / 100)) for row in rows)


@pytest.mark.parametrize("tracker", LOSSES)
def test_evaluations_stand_apart_under_one_name(logs: Path, tracker: str) -> None:
    evaluations = [one for one in evaluations_of(only(logs / LOSSES[tracker][0])) if one.split == "validation"]
    assert [one.step for one in evaluations] == [9, 19, 29]
    assert all(one.values["loss"] == pytest.approx(3.0 / (one.step + 1)) for one in evaluations)


def test_times_are_those_of_the_original(logs: Path) -> None:
    assert [row.at for row in rows_of(only(logs / "tensorboard"))[:3]] == [
        1_700_000_000_250_000,
        1_700_000_002_250_000,
        1_700_000_004_250_000,
    ]
    times = [row.at or 0 for row in rows_of(only(logs / "mlflow" / "mlruns"))]
    assert {later - earlier for earlier, later in pairwise(times)} == {2_000_000}


# ----------------------------------------------------------------------------------------------------- one by one


def test_tensorboard_a_second_process_that_goes_back_is_a_restart(logs: Path) -> None:
    rows = rows_of(only(logs / "tensorboard"))
    assert [(row.step, row.restarts) for row in rows[STEPS - 1 : STEPS + 2]] == [(29, False), (20, True), (21, False)]
    assert len(rows) == STEPS + 10


def test_tensorboard_what_counts_epochs_is_kept_apart_from_what_counts_steps(logs: Path) -> None:
    aside = [one for one in evaluations_of(only(logs / "tensorboard")) if one.split == "other axis"]
    assert [(one.step, one.values) for one in aside] == [(epoch, {"epoch_seconds": 20.0}) for epoch in range(3)]


def test_tensorboard_hyperparameters_are_the_configuration(logs: Path) -> None:
    assert only(logs / "tensorboard").said().config == {"lr": 0.001, "optimizer": "adam", "amsgrad": 1.0}


def test_mlflow_the_database_says_what_the_folder_says(logs: Path) -> None:
    by_store = [source for source in find(logs / "mlflow").sources if source.name.startswith("well")]
    database, folder = ([row.values for row in rows_of(source)] for source in by_store)
    assert repr(database) == repr(folder)
    assert {repr(source.said().config) for source in by_store} == {"{'lr': '0.001', 'optimizer': 'adam'}"}


def test_mlflow_how_a_run_ended_and_its_machine(logs: Path) -> None:
    said = {source.name.split("-")[0]: source.said() for source in find(logs / "mlflow" / "mlflow.db").sources}
    assert (said["well"].outcome, said["failed"].outcome) == ("completed", "crashed")
    assert said["well"].tags["team"] == "us"
    folder = only(logs / "mlflow" / "mlruns")
    samples = [one for one in arranged(folder.items(), survey(folder, {}).naming) if isinstance(one, Sample)]
    assert [one.values for one in samples] == [{"system/gpu_0_utilization_percentage": 90.0}] * 3


def test_wandb_configuration_name_and_end(logs: Path) -> None:
    source = only(logs / "wandb")
    said = source.said()
    assert source.name == "well-well0001"
    assert (said.config["lr"], said.config["model"], said.outcome) == (0.001, {"layers": 2}, "completed")
    assert said.tags["wandb.project"] == "logs"
    assert any(item.step is None and "system/cpu" in item.values for item in source.items())


def test_wandb_a_log_without_an_end_is_of_a_run_that_was_lost(logs: Path) -> None:
    file = logs / "wandb" / "run-well0001.wandb"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 6 // 10])
    source = only(file)
    assert source.said().outcome == "lost"
    assert 0 < len(rows_of(source)) < STEPS


def test_huggingface_the_last_of_several_states_is_the_run(logs: Path) -> None:
    source = only(logs / "huggingface")
    rows = rows_of(source)
    assert [row.step for row in rows] == list(range(1, STEPS + 1))
    assert {"loss", "grad_norm", "learning_rate"} <= rows[0].values.keys()
    assert [one.step for one in evaluations_of(source)] == [10, 20, 30]
    assert source.said().outcome == "completed"
    (logs / "huggingface" / "trainer_state.json").unlink()
    assert only(logs / "huggingface").path.parent.name == "checkpoint-30"


def test_lightning_hyperparameters_beside_the_metrics_are_the_configuration(logs: Path) -> None:
    source = only(logs / "lightning")
    assert (source.format, source.said().config) == ("lightning", {"lr": 0.001, "layers": 2})


# --------------------------------------------------------------------------------------------------------- tables


def table(tmp_path: Path, text: str, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_table_says_its_step_time_and_numbers_by_their_names(tmp_path: Path) -> None:
    path = table(tmp_path, "iter;Timestamp;loss;note\n5;1700000000;1.5;a\n10;1700000001.5;inf;b\n15;1700000003;;c\n")
    rows = rows_of(only(path))
    assert rows == [
        Row(1_700_000_000_000_000, 5, {"loss": 1.5}),
        Row(1_700_000_001_500_000, 10, {"loss": math.inf}),
    ]


@pytest.mark.parametrize(
    "written, micros",
    [
        ("1700000000", 1_700_000_000_000_000),
        ("1700000000123", 1_700_000_000_123_000),
        ("1700000000123456", 1_700_000_000_123_456),
        ("1700000000123456000", 1_700_000_000_123_456),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000),
        ("2023-11-14 23:13:20+01:00", 1_700_000_000_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000_000_000),
    ],
)
def test_a_time_is_understood_as_people_write_it(tmp_path: Path, written: str, micros: int) -> None:
    [row] = rows_of(only(table(tmp_path, f"step,time,loss\n0,{written},1\n")))
    assert row.at == micros


def test_a_person_says_which_column_is_which(tmp_path: Path) -> None:
    path = table(tmp_path, "seen,when,ce,step\n5,0.5,2.0,900\n6,1.5,1.0,901\n")
    wanted = {"step": "seen", "time": "when", "loss": "ce"}
    [source] = find(path, None, wanted).sources
    found = survey(source, wanted)
    rows = list(arranged(source.items(), found.naming))
    assert found.said.clock == "elapsed"
    assert rows == [
        Row(500_000, 5, {"loss": 2.0, "step": 900.0}),
        Row(1_500_000, 6, {"loss": 1.0, "step": 901.0}),
    ]


def test_json_lines_may_be_nested_and_begin_with_something_else(tmp_path: Path) -> None:
    lines = [
        {"config": {"lr": 1}},
        {"step": 3, "train": {"loss": 2.0}, "ok": True},
        {"step": 4, "train": {"loss": "NaN"}},
    ]
    path = table(tmp_path, "\n".join(json.dumps(line) for line in lines) + '\n{"step": 5, "tr', "log.jsonl")
    rows = rows_of(only(path))
    assert [(row.step, repr(row.values)) for row in rows] == [(3, "{'train/loss': 2.0}"), (4, "{'train/loss': nan}")]


# ------------------------------------------------------------------------------------------------------- refused

REFUSED = {
    "empty": ("log.csv", "", "holds no rows"),
    "only names": ("log.csv", "step,loss\n", "holds no rows"),
    "no numbers": ("log.csv", "name,city\nann,rome\n", "line 2 has no numbers"),
    "no names": ("log.csv", "0,1.5\n1,1.4\n", "its first line holds numbers"),
    "a step that is none": ("log.csv", "step,loss\n0,1\n1.5,1\n", "line 3: step '1.5' is no step"),
    "a step below nought": ("log.csv", "step,loss\n-1,1\n", "line 2: step '-1' is no step"),
    "a time that is none": ("log.csv", "step,time,loss\n0,1700000000,1\n1,soon,1\n", "line 3: time 'soon' is no time"),
    "a loss that is none": ("log.csv", "step,loss\n0,1\n1,low\n", "line 3: loss 'low' is no number"),
    "too many cells": ("log.csv", "step,loss\n0,1,2\n", "line 2 has more cells"),
    "one name twice": ("log.csv", "step,loss,loss\n0,1,2\n", "two columns have one name"),
    "not JSON": ("log.jsonl", '{"step": 0, "loss": 1}\n{"step"\n{}\n', "line 2 is no JSON object"),
    "not an object": ("log.jsonl", "[1]\n", "line 1 is no JSON object but a list"),
    "deep": ("log.jsonl", "[" * 100_000 + "\n", "line 1 is no JSON object"),
    "no state": ("trainer_state.json", "{}", "has no log_history"),
    "a state of another kind": ("trainer_state.json", '{"log_history": [1]}', "an entry of its log_history"),
    "a state without steps": ("trainer_state.json", '{"log_history": [{"loss": 1}]}', "has no step"),
    "no W&B": ("run-x.wandb", "hello, this is no log", "does not begin as a log of W&B does"),
    "no event": ("events.out.tfevents.1.host", "x" * 64, "record at byte 0 is damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_understood_is_one_line_that_says_where_and_why(tmp_path: Path, case: str) -> None:
    name, text, why = REFUSED[case]
    path = table(tmp_path, text, name)
    [source] = find(path).sources
    with pytest.raises(FileRefused) as refused:
        survey(source, {})
    said = str(refused.value)
    assert said.startswith(str(tmp_path))
    assert why in said
    assert "\n" not in said


def test_what_is_mapped_and_not_there_is_said_with_what_there_is(tmp_path: Path) -> None:
    [source] = find(table(tmp_path, "step,ce\n0,1\n")).sources
    with pytest.raises(FileRefused, match=r"has no 'loss2' \(--map loss=loss2\); there are ce"):
        survey(source, {"loss": "loss2"})


@pytest.mark.parametrize("path", ["wandb/run-well0001.wandb", "tensorboard"])
def test_a_damaged_record_is_refused_and_a_torn_end_is_not(logs: Path, path: str) -> None:
    file = logs / path if (logs / path).is_file() else min((logs / path).glob("*.0"))
    whole = file.read_bytes()
    count = len(rows_of(only(logs / path)))
    file.write_bytes(whole[:-3])
    assert 0 < len(rows_of(only(logs / path))) <= count
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(FileRefused, match=r"the record at byte \d+ (is damaged|has no beginning)"):
        survey(only(logs / path), {})


def test_a_database_that_is_not_mlflows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE x (a)")
    other.close()
    [(refused, why)] = find(path).refused
    assert refused == path
    assert "is no database of MLflow's: no such table: runs" in why


def test_links_are_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    table(outside, "step,loss\n0,1\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(outside)
    (folder / "log.csv").symlink_to(outside / "log.csv")
    assert find(folder).sources == []


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="there is no such file or folder"):
        find(tmp_path / "nothing")
