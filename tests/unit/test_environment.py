"""What a run runs in and on, found by itself; and git's answer, from real repositories."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pilothouse.events.redaction import MARK
from pilothouse.producers.ranks.context import Place, local_rank
from pilothouse.producers.surroundings import environment
from pilothouse.producers.surroundings.environment import (
    at_once,
    by_looking,
    command,
    gpus_of_the_driver,
    launchers,
    packages,
    seeds,
)
from pilothouse.producers.surroundings.git_state import git_state, is_dirty


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("lr = 0.1\n")
    (tmp_path / "src").mkdir()
    git(tmp_path, "init")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_checkout_as_committed_is_clean_and_stays_so_when_only_its_times_change(checkout: Path) -> None:
    os.utime(checkout / "train.py", (1, 1))
    (checkout / "checkpoint.pt").write_text("nobody added it")
    state = git_state(checkout / "src")
    assert (len(state["commit"]), state["branch"], state["dirty"]) == (40, "main", False)


@pytest.mark.parametrize("staged", [True, False])
def test_a_change_of_a_tracked_file_is_dirty_staged_or_not(checkout: Path, staged: bool) -> None:
    (checkout / "train.py").write_text("lr = 0.2\n")  # of the same length, within the same moment
    if staged:
        git(checkout, "add", "train.py")
    assert git_state(checkout)["dirty"] is True


def test_asking_writes_nothing_into_the_checkout(checkout: Path) -> None:
    os.utime(checkout / "train.py", (1, 1))
    before = (checkout / ".git" / "index").read_bytes()
    assert is_dirty(checkout) is False
    assert (checkout / ".git" / "index").read_bytes() == before


def test_a_git_that_takes_too_long_is_given_up_and_the_commit_is_known_all_the_same(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    began = time.monotonic()
    state = git_state(checkout, seconds=0.2)
    assert "dirty" not in state
    assert len(state["commit"]) == 40
    assert time.monotonic() - began < 30


def test_without_git_or_a_checkout_nothing_is_told(checkout: Path, tmp_path_factory: pytest.TempPathFactory,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    assert git_state(tmp_path_factory.mktemp("plain")) == {}
    monkeypatch.setenv("PATH", "")
    assert is_dirty(checkout) is None


def test_the_environment_names_what_reproduces_a_run() -> None:
    import numpy

    found = at_once({"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "juno"}, {"seed": 7})
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["numpy"] == numpy.__version__
    assert found["packages"]["pilothouse"]
    assert found["host"]
    assert found["cpus"] >= 1
    assert found["launcher"] == {"slurm": {"slurm_job_id": "17", "slurm_cluster_name": "juno"}}
    assert found["seeds"]["seed"] == 7
    assert found["command"]


def test_a_command_line_is_told_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "train.py", "--lr", "0.1", "--wandb-api-key", "Zq9", "hub_token=Zq9"]
    )
    assert command() == ["python", "train.py", "--lr", "0.1", "--wandb-api-key", MARK, f"hub_token={MARK}"]


def test_a_program_given_on_the_command_line_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "secret()", "--lr", "1"])
    monkeypatch.setattr(sys, "argv", ["-c", "--lr", "1"])
    assert command() == ["python", "-c", "…", "--lr", "1"]


def test_a_command_line_of_any_length_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["x" * 10_000] * 5_000)
    told = command()
    assert sum(map(len, told)) < 250_000
    assert told[-1] == "… and 4800 more"


def test_only_what_is_imported_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    assert "pandas" not in packages()


def test_launchers_tell_who_they_are_and_no_other_variable_is_read() -> None:
    environ = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "KUBERNETES_SERVICE_HOST": "10.0.0.1",
               "HOSTNAME": "train-0", "WANDB_API_KEY": "Zq9", "AWS_SECRET_ACCESS_KEY": "Zq9"}  # fmt: skip
    told = launchers(environ)
    assert told["torchrun"] == {"torchelastic_run_id": "none", "local_world_size": "4"}
    assert told["kubernetes"]["pod_name"] == "train-0"
    assert "Zq9" not in str(told)


def test_a_pod_knows_its_namespace_where_nobody_told_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = tmp_path / "namespace"
    monkeypatch.setattr(environment, "_NAMESPACE", mounted)
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-0"}
    assert launchers(pod)["kubernetes"] == {"pod_name": "train-0"}
    mounted.write_text("ml-team\n")
    assert launchers(pod)["kubernetes"] == {"pod_name": "train-0", "pod_namespace": "ml-team"}
    told = launchers(pod | {"POD_NAMESPACE": "told", "POD_NAME": "train-1"})["kubernetes"]
    assert told == {"pod_name": "train-1", "pod_namespace": "told"}


@pytest.mark.parametrize("built, told", [(("12.8", None), {"cuda": "12.8"}), ((None, "6.4.1"), {"hip": "6.4.1"}),
                                         ((None, None), None)])  # fmt: skip
def test_the_cuda_that_pytorch_was_built_for_is_told(
    built: tuple[str | None, str | None], told: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an imported `torch` alone, whatever it is: none is imported for it, and no device is asked."""
    version = SimpleNamespace(cuda=built[0], hip=built[1])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(version=version, initial_seed=lambda: 7))
    assert at_once({}, None).get("cuda") == told
    monkeypatch.delitem(sys.modules, "torch")
    assert "cuda" not in at_once({}, None)


def test_seeds_are_what_the_configuration_calls_so_at_any_depth() -> None:
    config = {"data": {"shuffle_seed": 3}, "seed": 1, "seed_text": "no number", "lr": 0.1}
    found = seeds(config, {"PYTHONHASHSEED": "5"})
    found.pop("torch", None)
    assert found == {"data.shuffle_seed": 3, "seed": 1, "PYTHONHASHSEED": "5"}


def test_a_source_that_fails_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "packages", lambda: 1 / 0)
    found = at_once({}, None)
    assert "packages" not in found
    assert found["python"]


def test_devices_are_those_of_the_driver_where_nvml_cannot_be_asked(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t 90\n")
    assert gpus_of_the_driver(tmp_path) == {"count": 2, "models": ["NVIDIA H100 80GB HBM3"]}
    assert gpus_of_the_driver(tmp_path / "none") == {}


def test_looking_around_asks_nvml_before_the_driver() -> None:
    *_, gpus = by_looking(lambda: {"count": 8, "models": ["X"]})
    assert gpus() == {"gpus": {"count": 8, "models": ["X"]}}


@pytest.mark.parametrize(
    "environ, rank",
    [({}, 5), ({"LOCAL_RANK": "1"}, 1), ({"SLURM_LOCALID": "2"}, 2), ({"LOCAL_RANK": "x"}, 5)],
)
def test_the_local_rank_is_the_launchers_word(environ: dict[str, str], rank: int) -> None:
    assert local_rank(Place(5, 8), environ) == rank
