"""`pilothouse replay` and `pilothouse backtest` on a real archive: what they print, and with which status they end."""

import json
from pathlib import Path

import pytest

from pilothouse.events.commands import RunAnnotated
from pilothouse.producers.steering.plan import Plan, read_plan
from pilothouse.settings import Settings
from pilothouse.tests.archived_runs import HEAL, RunArchive, broken
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.stack_fixture import refused, typed


def run_of(name: str, *, ends: bool = True, **fields: object) -> GovernedRun:
    run = GovernedRun(world=2, run_id=name, **fields).begin(HEAL).train(100, steps_per_tick=2)  # type: ignore[arg-type]  # any
    return run.end() if ends else run


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> RunArchive:
    kept = RunArchive(endpoint, tmp_path_factory.mktemp("home"))
    kept.keep(run_of("saved", loss=broken))
    kept.keep(run_of("quiet"))
    kept.keep(run_of("going-on", ends=False))
    holed = run_of("holed", loss=broken)
    at = [place.offset for place, event in holed.records if event.kind == "step_batch"][130]
    kept.keep(holed, without_offset=at)
    return kept


def test_a_whole_archived_run_is_proven(archive: RunArchive) -> None:
    answer = archive.cli("replay", "saved", "--json")
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stdout
    said = json.loads(answer.stdout)
    assert (said["same"], said["not_proven"], said["ended"]) == (True, [], True)
    assert said["same_decisions"] == said["decisions"] > 10
    assert "bit for bit" in archive.cli("replay", "saved").stdout


def test_a_run_that_goes_on_is_proven_as_far_as_it_is_archived(archive: RunArchive) -> None:
    answer = archive.cli("replay", "going")
    assert answer.returncode == 0, answer.stdout
    assert "as far as the archive has them" in answer.stdout


def test_a_log_with_a_hole_names_the_first_decision_that_differs(archive: RunArchive) -> None:
    answer = archive.cli("replay", "holed", "--json")
    assert answer.returncode == 1
    said = json.loads(answer.stdout)
    assert said["difference"]["number"] == said["same_decisions"] + 1
    assert said["difference"]["place"][0] == 0
    assert any("records are missing in the log" in line for line in said["not_proven"])
    assert f"decision {said['difference']['number']} is the first that differs" in archive.cli("replay", "holed").stdout


def test_a_run_that_nobody_knows_is_a_mistake(archive: RunArchive) -> None:
    assert "did you mean saved?" in refused(archive.cli("replay", "savd"))


def test_without_an_archive_it_is_said_how_to_start_one(tmp_path: Path, archive: RunArchive) -> None:
    nowhere = {"PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:9/pilothouse"}
    assert "pilothouse up" in refused(typed("replay", "saved", data_dir=tmp_path, more=nowhere))


# ------------------------------------------------------------------------------------------------------ backtest

QUICK = """
name: quick
mode: enforce
rules:
- name: heal
  when: conditions.Finite == 'False'
  actions: [{action: scale_lr, factor: 0.5}]
- name: nervous
  when: has(features.loss) && features.loss > 0.0
  cooldown_steps: 1000
  actions: [{action: notify, message: a loss}]
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("policies") / "quick.yaml"
    file.write_text(QUICK)
    return str(file)


def test_a_policy_is_tested_on_all_runs_beside_each_other_as_one_after_the_other(
    archive: RunArchive, policy: str
) -> None:
    at_once = archive.cli("backtest", policy, "--all", "--jobs", "2", "--json")
    in_turn = archive.cli("backtest", policy, "--since", "10000w", "--jobs", "1", "--json")
    assert (at_once.returncode, at_once.stderr) == (0, "")
    assert at_once.stdout == in_turn.stdout
    said = json.loads(at_once.stdout)
    runs = {run["run_id"]: run for run in said["runs"]}
    assert sorted(runs) == ["going-on", "holed", "quiet", "saved"]
    assert (runs["quiet"]["healthy"], runs["saved"]["healthy"], runs["going-on"]["healthy"]) == (True, False, False)
    assert runs["saved"]["open_loop_from"] == 60
    assert "open loop from step 60" in runs["saved"]["cannot_know"][0]
    assert said["total"]["false_candidate"] == {
        "runs": 1, "alarms": 1, "interventions": 0, "proposed_interventions": 0
    }  # fmt: skip
    assert said["total"]["catches"] == {"same": 2}
    assert said["total"]["candidate"]["sound"]["issued"] == {"notify": 4, "scale_lr": 2}
    assert said["total"]["in_force"]["sound"]["rules"] == {"heal": {"issued": 2, "proposed": 2}}


def test_runs_are_named_one_behind_the_other(archive: RunArchive, policy: str) -> None:
    answer = archive.cli("backtest", policy, "--runs", "saved", "quiet", "--jobs", "1")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [line.split()[0] for line in answer.stdout.splitlines()[1:3]] == ["saved", "quiet"]
    assert "rule nervous" in answer.stdout
    assert "on 2 runs" in answer.stdout


def test_a_broken_run_is_said_and_the_others_are_tested(archive: RunArchive, policy: str) -> None:
    noted = GovernedRun(world=1, run_id="noted")
    noted.fold(RunAnnotated(at=1, run_id="noted", writer_id="person", seq=1, who="me", text="only this"))
    archive.keep(noted)
    answer = archive.cli("backtest", policy, "--runs", "noted", "quiet", "--json", "--jobs", "1")
    assert answer.returncode == 1
    unjudged, quiet = json.loads(answer.stdout)["runs"]
    assert "nothing of it that could be judged" in unjudged["error"]
    assert (quiet["error"], quiet["healthy"]) == ("", True)


def test_a_policy_with_mistakes_is_refused_with_all_of_them_before_anything_is_read(
    tmp_path: Path, archive: RunArchive
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: Wrong Name\nmode: obey\nrules: []\n")
    answer = archive.cli("backtest", str(wrong), "--all")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "name:" in answer.stderr
    assert "mode:" in answer.stderr


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "say which runs"),
        (("--all", "--since", "7d"), "say which runs"),
        (("--since", "a week"), "write 90m, 12h, 7d or 4w"),
        (("--runs", "savd"), "did you mean saved?"),
    ],
)
def test_what_was_asked_for_wrongly_is_said(
    archive: RunArchive, policy: str, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(archive.cli("backtest", policy, *words))


# ------------------------------------------------------------------------------------------------------ plan


def test_the_plan_of_a_run_lies_where_a_run_that_follows_it_looks(archive: RunArchive) -> None:
    answer = archive.cli("plan", "saved")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines()[-1] == 'follow it with: start_run(..., follow="saved")'
    found = read_plan("saved", Settings(data_dir=archive.folder))
    assert [(done.step, done.action.action) for done in found.interventions] == [(61, "rollback")]
    assert (found.run_id, found.complete, len(found.stretches)) == ("saved", True, 2)


def test_a_plan_goes_into_a_file_or_a_pipe(archive: RunArchive, tmp_path: Path) -> None:
    file = tmp_path / "somewhere" / "plan.json"
    said = json.loads(archive.cli("plan", "saved", "--out", str(file), "--json").stdout)
    assert (said["file"], said["stretches"]) == (str(file), 2)
    piped = archive.cli("plan", "saved", "--out", "-").stdout
    assert Plan.model_validate_json(piped).model_dump_json() == read_plan(file, Settings()).model_dump_json()


def test_a_run_that_was_never_started_has_no_plan(archive: RunArchive) -> None:
    noted = GovernedRun(world=1, run_id="only-noted")
    noted.fold(RunAnnotated(at=1, run_id="only-noted", writer_id="person", seq=1, who="me", text="only this"))
    archive.keep(noted)
    assert "was never started" in refused(archive.cli("plan", "only-noted"))
