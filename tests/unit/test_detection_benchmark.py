"""How the detection benchmark counts, what it makes and reads, and that the peers' rules are the published ones."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from pilothouse.benchmarks.detection import __main__ as command
from pilothouse.benchmarks.detection import choose, peers, pictures
from pilothouse.benchmarks.detection.corpus import read_corpus
from pilothouse.benchmarks.detection.families import FAULTS, faulty_series, healthy_series
from pilothouse.benchmarks.detection.healthy import HEALTHY
from pilothouse.benchmarks.detection.score import Mistake, Score, judge
from pilothouse.benchmarks.detection.series import Alarm, Column, Incident, Series
from pilothouse.benchmarks.detection.table import BEGIN, END, poisson, row_of, table, wilson, written_into
from pilothouse.benchmarks.detection.traces import Bounds, alarms_of, instability, record


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


def test_an_incident_is_found_by_the_condition_that_is_about_it() -> None:
    score = Score()
    incident = Incident("straggler", 100, 200)
    judge(score, series([1.0] * 300, None, incident), [Alarm(110, 120, "Stable", "LossAboveBaseline")])
    assert (score.recall, score.false) == ({"straggler": 0.0}, 0)
    judge(score, series([1.0] * 300, None, incident), [Alarm(110, 120, "Efficient", "Straggler")])
    assert score.recall == {"straggler": 0.5}


def test_false_alarms_are_counted_by_what_they_said() -> None:
    score = Score()
    judge(score, series([1.0] * 300), [Alarm(50, 51, "Stable", "LossClimbing"), Alarm(200, 201)])
    assert score.false_by_alarm == {"Stable LossClimbing": 1, "": 1}


def test_limits_are_those_of_the_textbooks() -> None:
    assert poisson(0) == pytest.approx((0.0, 3.69), abs=0.05)
    assert poisson(10) == pytest.approx((4.80, 18.39), abs=0.05)  # exact: 4.795 and 18.390
    assert wilson(7, 14) == pytest.approx((0.268, 0.732), abs=0.001)
    assert wilson(6, 6) == pytest.approx((0.610, 1.0), abs=0.001)


def test_the_table_says_how_sure_our_rates_are_and_how_many_incidents_there_were() -> None:
    score = Score()
    judge(score, series([1.0] * 1_000, None, SPIKE), [Alarm(101, 105), Alarm(500, 501)])
    told = row_of("pilothouse", "real", score)
    assert (told["false_per_10k"], told["recall"], told["delay_p50"]) == (10.0, {"spike": 1.0}, {"spike": 1})
    text = table("real", [told, row_of("other", "real", score)])
    assert "| false episodes per 10,000 steps | 10.00 [0.13, 55.64] | 10.00 |" in text
    assert "| spike (1) | 100% [21, 100] (1) | 100% (1) |" in text


def test_the_tables_of_a_document_are_replaced_and_nothing_else() -> None:
    text = f"before\n{BEGIN}old\n{END}\nafter\n"
    once = written_into(text, ["new one", "new two"])
    assert once == f"before\n{BEGIN}\nnew one\nnew two\n{END}\nafter\n"
    assert written_into(once, ["new one", "new two"]) == once
    with pytest.raises(ValueError, match="no place for tables"):
        written_into("before and after", [])


def test_a_detector_answers_only_for_what_it_claims_to_see() -> None:
    score = Score()
    judge(score, series([1.0] * 300, None, SPIKE), [], watched=("nan",))
    assert score.recall == {}


def test_made_series_are_those_of_their_seed_and_name_one_failure_each() -> None:
    healthy, faulty = healthy_series(1, rows=1_000), faulty_series(1, rows=1_000)
    assert [made.family for made in healthy] == list(HEALTHY)
    assert [made.incidents[0].kind for made in faulty] == list(FAULTS)
    assert [incident for made in healthy for incident in made.incidents if incident.must] == []
    again = faulty_series(1, rows=1_000)
    assert json.dumps([made.ranks for made in faulty]) == json.dumps([made.ranks for made in again])


def rows_of(name: str, losses: Column, norms: Column | None = None) -> list[int]:
    return list(peers.RULES[name](series(losses, norms)))


def test_kill_loss_spike_alarms_at_the_fifth_loss_of_twice_the_mean() -> None:
    assert rows_of("KillLossSpike", [2.0] * 100 + [4.1] * 4 + [2.0] * 10) == []
    assert rows_of("KillLossSpike", [2.0] * 100 + [4.5] * 6) == [104, 105]


def test_kill_loss_spike_alarms_when_half_of_its_window_is_over_ten() -> None:
    assert rows_of("KillLossSpike", [11.0] * 200) == [199]


def test_megatron_compares_with_the_largest_of_a_hundred_after_the_first() -> None:
    assert rows_of("Megatron spiky loss", [9.0] + [3.0] * 50 + [5.0] + [3.0] * 49 + [49.0, 50.0]) == [102]


def test_lightning_alarms_at_three_times_the_mean_of_ten_and_leaves_it_out() -> None:
    assert rows_of("Lightning SpikeDetection", [2.0] * 20 + [5.9, 2.0] + [7.5, 7.6, 1.0]) == [22, 23]
    assert rows_of("Lightning SpikeDetection", [2.0, math.nan, 2.0]) == [1]
    assert rows_of("Lightning SpikeDetection", [math.nan, math.nan, 2.0, 2.0]) == [1]


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
    assert rows_of("ZClip", [2.0] * 62, [*norms, math.nan, 1.5]) == []


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


@pytest.mark.parametrize(
    "name, text, mistake",
    [
        ("one.csv", "step,loss\nten,2.5\n", r"one\.csv, line 2: step is no number: 'ten'"),
        ("one.csv", "step,loss\n1,2.5\n2,2.4\n3,2.3e\n", r"one\.csv, line 4: loss is no number: '2\.3e'"),
        ("one.csv", "step,loss\n,2.5\n", r"one\.csv, line 2: step is no number from 0 on: ''"),
        ("one.csv", "step,loss\nnan,2.5\n", r"line 2: step is no number from 0 on"),
        ("one.csv", "step,loss\n-1,2.5\n", r"line 2: step is no number from 0 on"),
        ("one.csv", "iteration,loss\n1,2.5\n", r"one\.csv has no column 'step'; it has: iteration, loss"),
        ("one.csv", "step,loss\n1,\xff\n", r"one\.csv cannot be read: UnicodeDecodeError"),
        ("../manifest.csv", "run_id,incidents\none,[{]\n", r"incidents of one cannot be read: JSONDecodeError"),
        ("../manifest.csv", 'run_id,incidents\none,"[{""kind"": ""nan""}]"\n', r"of one cannot be read: KeyError"),
        (
            "../manifest.csv",
            'run_id,incidents\none,"[{""kind"": ""nan"", ""row_start"": 9}]"\n',
            r"of one cannot be read: ValueError: rows 9 to 9 of 3",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, mistake: str
) -> None:
    folder = corpus(tmp_path, "1,2.5,,,,", "2,2.4,,,,", "3,2.4,,,,")
    (folder / "runs" / name).write_bytes(text.encode("latin-1"))
    assert command.main(["--runs", str(folder), *nowhere(tmp_path)]) == 2
    [said] = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("not measured: ")]
    assert re.search(mistake, said)


def nowhere(folder: Path) -> list[str]:
    """Options by which nothing is written outside of the test's folder, and no picture drawn."""
    return [
        "--json", str(folder / "rows.json"), "--mistakes", str(folder / "wrong.json"), "--most-pictures", "0",
    ]  # fmt: skip


def test_what_is_no_corpus_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--runs", str(tmp_path / "nowhere"), "--only", "pilothouse", *nowhere(tmp_path)]) == 2
    assert "holds no runs" in capsys.readouterr().err


def test_a_run_is_read_as_other_programs_write_it(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "1,2.5,,,,")
    (folder / "runs" / "empty.csv").write_text("")
    (folder / "runs" / "header.csv").write_text("step,loss\n")
    (folder / "runs" / "other.csv").write_bytes(
        "\ufeffstep , epoch, loss,grad_norm,note\r\n5.0,0, 2.5 ,NaN,fine\r\n\r\n1e1,0,,-inf,\r\n12,0,2.25\r\n".encode()
    )
    runs = {run.name: run for run in read_corpus(folder)}
    assert sorted(runs) == ["one", "other"]
    other = runs["other"]
    assert (other.steps, other.column("loss"), other.group) == ([5, 10, 12], [2.5, None, 2.25], "other")
    assert [str(norm) for norm in other.column("grad_norm")] == ["nan", "-inf", "None"]


def test_a_folder_without_labels_has_no_incidents_and_an_unknown_kind_is_nobodys_duty(tmp_path: Path) -> None:
    told = json.dumps([{"kind": "earthquake", "row_start": 0}])
    [run] = read_corpus(corpus(tmp_path, "1,2.5,,,,", incidents=told))
    assert run.incidents == (Incident("earthquake", 0, 0, must=False, may=True, early=3),)
    (tmp_path / "manifest.csv").unlink()
    [run] = read_corpus(tmp_path)
    assert (run.family, run.incidents) == ("unlabelled", ())


def test_the_command_scores_ours_beside_the_peers_and_writes_it_down(tmp_path: Path) -> None:
    rows = [f"{step},{2.0 + 0.01 * (step % 3)},,,," for step in range(300)]
    rows[200:] = [f"{step},nan,,,," for step in range(200, 300)]
    folder = corpus(tmp_path, *rows, incidents=json.dumps([{"kind": "nan", "row_start": 200, "row_end": 299}]))
    written = tmp_path / "out" / "detection.json"
    assert command.main(["--runs", str(folder), *nowhere(tmp_path), "--json", str(written)]) == 0
    row, *others = json.loads(written.read_text())["rows"]
    assert (row["detector"], row["data"], row["false_per_10k"]) == ("pilothouse", "real", 0.0)
    assert (row["recall"], row["delay_p50"]) == ({"nan": 1.0}, {"nan": 0})
    assert row["us_per_step"] > 0
    assert {"Lightning SpikeDetection", "OLMo-core 6 sigma", "ZClip"} <= {other["detector"] for other in others}


def test_a_picture_is_drawn_for_each_kind_of_mistake_before_a_second_of_one(tmp_path: Path) -> None:
    [made] = [made for made in faulty_series(1, rows=600) if made.family == "straggler"]
    missed = [Mistake(made.name, "straggler", row, is_false=False) for row in (100, 200, 300)]
    false = Mistake(made.name, "Stable LossClimbing", 400, is_false=True)
    said = {"pilothouse": [Alarm(400, 420)], "another": []}
    cases = [pictures.Case("synthetic", mistake, made, said) for mistake in (*missed, false)]
    (tmp_path / "earlier.png").write_text("")
    assert pictures.draw(cases, tmp_path, most=2) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "synthetic-false-Stable-LossClimbing-straggler-0-row-400.png",
        "synthetic-missed-straggler-straggler-0-row-100.png",
    ]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in tmp_path.iterdir())


def spiky() -> list[Series]:
    return [
        made
        for made in [*faulty_series(1, rows=900), *healthy_series(1, rows=900)]
        if made.family in {"transient_spike", "fast_divergence", "sparse log", "batch size changed"}
    ]


def test_a_trace_gives_what_the_detector_says_under_its_own_bounds() -> None:
    for made in spiky():
        trace = record("synthetic", made)
        assert len(trace.seen[-1]) > 800
        assert instability(trace, Bounds()) == pytest.approx(trace.seen[-1], abs=1e-9)


def test_a_stricter_threshold_alarms_later_or_never() -> None:
    [made] = [made for made in spiky() if made.family == "transient_spike"]
    trace = record("synthetic", made)
    [alarm] = alarms_of(trace, Bounds())
    assert made.incidents[0].first <= alarm.first <= made.incidents[0].first + 2
    assert alarms_of(trace, Bounds(), factor=1_000.0) == []


def test_a_choice_keeps_to_the_budget_and_what_is_left_out_does_not_take_part() -> None:
    #  rows, false, found, missed: of three choices, over two made series and two real ones
    table_ = np.array(
        [
            [(10_000, 0, 1, 1), (10_000, 0, 1, 1), (10_000, 0, 1, 1), (10_000, 0, 1, 1)],
            [(10_000, 0, 2, 0), (10_000, 0, 2, 0), (10_000, 0, 2, 0), (10_000, 9, 2, 0)],
            [(10_000, 0, 2, 0), (10_000, 0, 1, 1), (10_000, 0, 1, 1), (10_000, 0, 1, 1)],
        ]
    )
    is_real = np.array([False, False, True, True])
    everything = np.array([True] * 4)
    assert choose.best(table_, is_real, everything) == 2
    assert choose.best(table_, is_real, np.array([True, True, True, False])) == 1
    assert choose.best(table_[[0, 0]], is_real, everything) == 0
