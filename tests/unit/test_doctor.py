"""What the doctor finds on a machine: workers, policies, what killed commands left; with nothing that runs."""

import json
import os
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.doctor import machine_checks as machine
from pilothouse.cli.doctor.finding import Check, Finding, findings
from pilothouse.cli.key_files import TRUSTED_FILE
from pilothouse.settings import Settings
from pilothouse.tests.stack_fixture import typed

Look = Callable[[Settings], Iterable[Finding]]


def seen(look: Look, home: Path, **settings: Any) -> list[Finding]:
    return list(findings(Check("asked", look), Settings(data_dir=home, **settings)))


def tell(home: Path, worker: str = "governor-0", **words: Any) -> None:
    told = {"role": worker.partition("-")[0], "at": time.time_ns() // 1_000, "state": "running", "lag": {}}
    (home / "health").mkdir(exist_ok=True)
    (home / "health" / f"{worker}.json").write_text(json.dumps({**told, "version": version("pilothouse")} | words))


WORKERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "hangs": ({"at": 1}, "fault", "has said nothing for"),
    "was stopped": ({"state": "stopped"}, "fault", "was stopped"),
    "waits": ({"state": "waiting"}, "fault", "waits for its partitions"),
    "is in trouble": ({"last_error": "9 records wait for the archive"}, "fault", "9 records wait"),
    "is late": ({"lag": {"t/0": 9_000, "t/1": 9_000}}, "warning", "18000 records wait"),
    "half written": ({"at": "soon", "lag": None}, "fault", "has said nothing"),
    "works": ({}, "well", "works, 0 records wait"),
}


@pytest.mark.parametrize("case", WORKERS)
def test_a_worker_that_does_not_work_is_found(tmp_path: Path, case: str) -> None:
    words, status, said = WORKERS[case]
    tell(tmp_path, **words)
    [found] = seen(machine.workers, tmp_path)
    assert (found.status, said in found.found) == (status, True), found
    assert bool(found.do) == (status != "well")


def test_a_stack_without_its_governor_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"kafka": "127.0.0.1:1"}')
    tell(tmp_path, "archiver-0")
    assert [found.found for found in seen(machine.workers, tmp_path) if found.status == "fault"] == [
        "the governor has not said anything"
    ]


def test_a_worker_of_another_version_and_one_with_an_older_policy_are_warned_of(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: mine\nrules: []\n")
    tell(tmp_path, version="0.0.1", began_at=1)
    rows = {row.check: row for row in seen(machine.workers, tmp_path, policy_file=policy)}
    assert "is of version 0.0.1" in rows["versions"].found
    assert "changed after governor-0 read it" in rows["policies"].found


def test_a_policy_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("rules: 7")
    [found] = seen(machine.policies, tmp_path, policy_file=tmp_path / "policy.yaml")
    assert (found.status, "cannot be used" in found.found) == ("fault", True)


def test_what_killed_commands_left_is_found_when_it_is_old(tmp_path: Path) -> None:
    left, young = tmp_path / "archive" / "backups" / "old", tmp_path / "archive" / "backups" / "young"
    for folder in (left, young):
        folder.mkdir(parents=True)
    os.utime(left, (1, 1))
    assert [row.do for row in seen(machine.leftovers, tmp_path)] == [f"rm -r {left}"]


def test_little_room_is_found_and_a_folder_that_is_not_there_yet_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {row.status for row in seen(machine.disks, tmp_path / "not" / "there")} == {"well"}
    monkeypatch.setattr(machine, "LITTLE_FREE", 2**62)
    assert {row.status for row in seen(machine.disks, tmp_path)} == {"warning"}
    monkeypatch.setattr(machine, "LEAST_FREE", 2**62)
    [row] = seen(machine.disks, tmp_path)
    assert (row.status, "make room" in row.do) == ("fault", True)


def test_every_wrong_setting_is_a_finding_and_status_1(tmp_path: Path) -> None:
    wrong = {"PILOTHOUSE_PARTITIONS": "many", "PILOTHOUSE_TICK_SECONDS": "-1"}
    answer = typed("doctor", "--json", data_dir=tmp_path, more=wrong)
    assert answer.returncode == 1
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(row["status"], row["found"].partition(" ")[0]) for row in rows] == [
        ("fault", "partitions"),
        ("fault", "tick_seconds"),
    ]


def test_what_is_away_is_said_once_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    away = {"PILOTHOUSE_KAFKA": "127.0.0.1:1", "PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:1/pilothouse"}
    answer = typed("doctor", "--json", data_dir=tmp_path, more=away)
    assert answer.returncode == 1
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    faults = [row for row in rows if row["status"] == "fault"]
    assert [row["check"] for row in faults] == ["broker", "schema"]
    assert all("pilothouse up" in row["found"] for row in faults)
    assert "disk" in {row["check"] for row in rows}


def test_a_key_that_nobody_here_trusts_is_a_fault_and_none_at_all_a_warning(tmp_path: Path) -> None:
    assert [row.status for row in seen(machine.keys, tmp_path)] == ["warning"]
    for folder in ("mine", "theirs"):
        assert typed("keys", "new", "governor", "--keys", str(tmp_path / folder), data_dir=tmp_path).returncode == 0
    signing, trusted = keys_in(tmp_path / "mine")
    assert [
        row.status for row in seen(machine.keys, tmp_path, signing_key_file=signing, trusted_keys_file=trusted)
    ] == ["well"]
    _, others = keys_in(tmp_path / "theirs")
    [row] = seen(machine.keys, tmp_path, signing_key_file=signing, trusted_keys_file=others)
    assert (row.status, "is not trusted here" in row.found) == ("fault", True)
    (tmp_path / "short").write_text("AAAA")
    [row] = seen(machine.keys, tmp_path, encryption_key_file=tmp_path / "short")
    assert (row.status, "no key of encryption" in row.found) == ("fault", True)


def keys_in(folder: Path) -> tuple[Path, Path]:
    """The file to sign with as governor, and the trusted keys."""
    return folder / "governor.key", folder / TRUSTED_FILE
