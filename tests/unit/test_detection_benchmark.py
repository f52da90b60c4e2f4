"""How the detection benchmark counts, what it makes and reads, and that the peers' rules are the published ones."""

import csv
import json
import math
from pathlib import Path

import pytest

from pilothouse.benchmarks.detection import __main__ as command
from pilothouse.benchmarks.detection import peers
from pilothouse.benchmarks.detection.corpus import read_corpus
from pilothouse.benchmarks.detection.families import FAULTS, faulty_series, healthy_series
from pilothouse.benchmarks.detection.healthy import HEALTHY
from pilothouse.benchmarks.detection.score import Score, judge
from pilothouse.benchmarks.detection.series import Alarm, Column, Incident, Series
from pilothouse.events.errors import UserMistake


def series(losses: Column, norms: Column | None = None, *incidents: Incident) -> Series:
    rows = list(range(len(losses)))
    metrics = {"loss": losses} | ({"grad_norm": norms} if norms else {})
    return Series("one", "made", "group", rows, [float(row) for row in rows], [metrics], incidents)


SPIKE = Incident("spike", 100, 110)


@pytest.mark.parametrize(
    "alarms, false, found",
    [
        ([Alarm(101, 105)], 0, 1),
        ([Alarm(102, 105)], 0, 1),
        ([Alarm(103, 105)], 0, 0),  # too late, and no false one
        ([Alarm(150, 155)], 0, 0),  # the way back
        ([Alarm(161, 165)], 1, 0),
        ([Alarm(90, 92)], 1, 0),
        ([Alarm(90, 105)], 1, 1),  # it stood before, for no reason
        ([Alarm(300, 300), Alarm(305, 305), Alarm(325, 326)], 1, 0),  # one that flickers
        ([Alarm(300, 300), Alarm(321, 321)], 2, 0),
        ([], 0, 0),
    ],
)
def test_what_is_false_and_what_is_found(alarms: list[Alarm], false: int, found: int) -> None:
    score = Score()
    mistakes = judge(score, series([1.0] * 1_000, None, SPIKE), alarms)
    assert (score.false, score.found["spike"], score.missed["spike"]) == (false, found, 1 - found)
    assert score.false_per_10k == 10 * false
    assert [mistake.is_false for mistake in mistakes] == [True] * false + [False] * (1 - found)


def test_what_need_not_be_found_is_not_missed_and_what_must_not_alarm_excuses_nothing() -> None:
    outlier, opinion = (
        Incident("data_outlier", 50, 50, must=False, may=False),
        Incident("stressed", 200, 210, must=False),
    )
    score = Score()
    judge(score, series([1.0] * 300, None, outlier, opinion), [Alarm(51, 52), Alarm(205, 206)])
    assert (score.false, score.recall) == (1, {})


def test_a_detector_answers_only_for_what_it_claims_to_see() -> None:
    score = Score()
    judge(score, series([1.0] * 300, None, SPIKE), [], watched=("nan",))
    assert score.recall == {}


def test_made_series_are_those_of_their_seed_and_name_one_failure_each() -> None:
    healthy, faulty = healthy_series(1, rows=1_000), faulty_series(1, rows=1_000)
    assert [made.family for made in healthy] == list(HEALTHY)
    assert [made.incidents[0].kind for made in faulty] == list(FAULTS)
    assert not any(incident.must for made in healthy for incident in made.incidents)
    again = faulty_series(1, rows=1_000)
    assert json.dumps([made.ranks for made in faulty]) == json.dumps([made.ranks for made in again])


def rows_of(name: str, losses: Column, norms: Column | None = None) -> list[int]:
    return list(peers.RULES[name](series(losses, norms)))


def test_kill_loss_spike_alarms_at_the_fifth_loss_of_twice_the_mean() -> None:
    assert rows_of("KillLossSpike", [2.0] * 100 + [4.1] * 4 + [2.0] * 10) == []
    assert rows_of("KillLossSpike", [2.0] * 100 + [4.5] * 6) == [104, 105]


def test_kill_loss_spike_alarms_when_half_of_its_window_is_over_ten() -> None:
    assert rows_of("KillLossSpike", [11.0] * 201) == [200]


def test_megatron_compares_with_the_largest_of_the_first_hundred() -> None:
    assert rows_of("Megatron spiky loss", [3.0] * 50 + [5.0] + [3.0] * 49 + [49.0, 50.0]) == [101]


def test_lightning_alarms_at_three_times_the_mean_of_ten_and_leaves_it_out() -> None:
    assert rows_of("Lightning SpikeDetection", [2.0] * 20 + [5.9, 2.0] + [7.5, 7.6, 1.0]) == [22, 23]
    assert rows_of("Lightning SpikeDetection", [2.0, math.nan, 2.0]) == [1]


def test_olmo_skips_steps_by_loss_or_norm_six_deviations_over_the_mean() -> None:
    losses: Column = [2.0 + 0.01 * (row % 2) for row in range(128)]
    norms: Column = [1.0 + 0.1 * (row % 2) for row in range(128)]
    assert rows_of("OLMo-core 6 sigma", [*losses, 2.03], [*norms, 1.0]) == []
    assert rows_of("OLMo-core 6 sigma", [*losses, 2.05], [*norms, 1.0]) == [128]
    assert rows_of("OLMo-core 6 sigma", [*losses, 2.0], [*norms, 2.0]) == [128]
    assert rows_of("OLMo-core 6 sigma", [*losses, math.nan], [*norms, 1.0]) == [128]


def test_zclip_clips_norms_of_a_high_z_score() -> None:
    norms: Column = [1.0 + 0.1 * (row % 2) for row in range(60)]
    assert rows_of("ZClip", [2.0] * 61, [*norms, 1.1]) == []
    assert rows_of("ZClip", [2.0] * 61, [*norms, 1.5]) == [60]


def test_neighbouring_rows_are_one_alarm() -> None:
    assert peers.alarms_of(lambda _: iter([3, 4, 5, 9]), series([1.0] * 20)) == [Alarm(3, 5), Alarm(9, 9)]


def corpus(folder: Path, *rows: str, incidents: str = "[]") -> Path:
    (folder / "runs").mkdir()
    (folder / "runs" / "one.csv").write_text("\n".join(("step,loss,grad_norm,lr,val_loss,throughput", *rows)) + "\n")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["run_id", "source_repo", "label", "confidence", "incidents"])
        writer.writeheader()
        writer.writerow(
            {"run_id": "one", "source_repo": "a/b", "label": "nan", "confidence": "high", "incidents": incidents}
        )
    return folder


def test_a_corpus_is_read_with_its_labels(tmp_path: Path) -> None:
    told = json.dumps(
        [{"kind": "nan", "row_start": 1, "row_end": 1}, {"kind": "restart", "row_start": 2, "row_end": 2}]
    )
    [run] = read_corpus(corpus(tmp_path, "10,2.5,,,,", "20,nan,1.0,,3.5,", "10,inf,,,,", incidents=told))
    assert (run.name, run.group, run.steps, run.restarts, run.evaluations) == (
        "one",
        "a/b",
        [10, 20, 10],
        (2,),
        {1: 3.5},
    )
    assert run.column("loss")[0] == 2.5
    assert math.isnan(run.column("loss")[1] or 0.0)
    assert (run.column("grad_norm"), run.column("lr")) == ([None, 1.0, None], [None] * 3)
    assert [(incident.kind, incident.must) for incident in run.incidents] == [("nan", True), ("restart", False)]


def test_what_is_no_corpus_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserMistake, match=r"one\.csv cannot be read: ValueError"):
        list(read_corpus(corpus(tmp_path, "ten,2.5,,,,")))
    assert command.main(["--runs", str(tmp_path / "nowhere"), "--real-only"]) == 2
    assert "holds no runs" in capsys.readouterr().err


def test_the_command_scores_ours_beside_the_peers_and_writes_it_down(tmp_path: Path) -> None:
    rows = [f"{step},{2.0 + 0.01 * (step % 3)},,,," for step in range(300)]
    rows[200:] = [f"{step},nan,,,," for step in range(200, 300)]
    folder = corpus(tmp_path, *rows, incidents=json.dumps([{"kind": "nan", "row_start": 200, "row_end": 299}]))
    written = tmp_path / "out" / "detection.json"
    assert command.main(["--runs", str(folder), "--real-only", "--only", "pilothouse", "--json", str(written)]) == 0
    [row] = json.loads(written.read_text())["rows"]
    assert (row["detector"], row["data"], row["false_per_10k"]) == ("pilothouse", "real", 0.0)
    assert (row["recall"], row["delay_p50"]) == ({"nan": 1.0}, {"nan": 0})
    assert row["us_per_step"] > 0
