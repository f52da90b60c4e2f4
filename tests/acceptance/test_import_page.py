"""docs/import.md does what it says: every command of the page, typed as it stands there."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.stack_fixture import CLI, cli, environ, typed

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "tests" / "logs_of_others"
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "import.md").read_text(), re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything that the page names."""
    folder = tmp_path_factory.mktemp("desk")
    for source, target in {
        "tensorboard": "runs/exp1",
        "mlflow/mlruns": "mlruns",
        "wandb": "wandb",
        "huggingface": "outputs",
        "lightning": "lightning_logs",
    }.items():
        shutil.copytree(LOGS / source, folder / target)
    (folder / "mlflow.db").write_bytes(gzip.decompress((LOGS / "mlflow" / "mlflow.db.gz").read_bytes()))
    rows = [f"{step},2026-01-01T00:00:{step:02},{2 / (step + 1)}" for step in range(50)]
    (folder / "log.csv").write_text("\n".join(["iter,date,ce", *rows]) + "\n")
    lines = [json.dumps({"step": step, "loss": 2.0 + step}) for step in range(50)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "logs" / "more").mkdir(parents=True)
    shutil.copyfile(folder / "log.csv", folder / "logs" / "first.csv")
    shutil.copyfile(folder / "metrics.jsonl", folder / "logs" / "more" / "second.jsonl")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def told(desk: Path, endpoint: EndpointProcess, *words: str) -> "subprocess.CompletedProcess[str]":
    return typed(*words, data_dir=desk / "data", more={"PILOTHOUSE_CLICKHOUSE_URL": endpoint.clickhouse_url})


def test_every_command_of_the_page_does_what_it_says(desk: Path, endpoint: EndpointProcess) -> None:
    assert len(COMMANDS) == 14
    assert told(desk, endpoint, "migrate").returncode == 0
    printed = {}
    for words in COMMANDS:
        answer = told(desk, endpoint, *words[1:])
        assert (answer.returncode, answer.stderr) == (0, ""), (words, answer.stderr)
        printed[" ".join(words[1:])] = answer.stdout
    assert re.search(r"first .*imported +50", printed["import logs"])
    assert re.search(r"more.second .*imported +50", printed["import logs"])
    assert "huggingface  imported" in printed["import outputs"]
    assert {json.loads(line)["result"] for line in printed["import logs --json"].splitlines()} == {"present"}
    assert "there already" in printed["import baseline.pilothouse"]
    runs = [json.loads(line) for line in told(desk, endpoint, "runs", "--json").stdout.splitlines()]
    outcomes = {row["run_id"]: row["outcome"] for row in runs}
    assert outcomes["metrics"] == "diverged"
    assert {"baseline", "exp1", "outputs", "lightning_logs.version_0", "first", "more.second"} <= outcomes.keys()
    assert len(runs) == 11


def test_what_cannot_be_brought_in_is_a_line_for_each_and_status_2_if_it_is_all(
    desk: Path, endpoint: EndpointProcess
) -> None:
    assert told(desk, endpoint, "migrate").returncode == 0
    spoiled = desk / "spoiled"
    spoiled.mkdir()
    (spoiled / "a.csv").write_text("step,loss\n0,1\nx,1\n")
    (spoiled / "b.jsonl").write_text("[]\n")
    answer = told(desk, endpoint, "import", str(spoiled))
    assert answer.returncode == 2
    first, second = answer.stderr.splitlines()
    assert first == f"pilothouse: {spoiled}/a.csv: line 3: step 'x' is no step: whole numbers from 0"
    assert second == f"pilothouse: {spoiled}/b.jsonl: line 1 is no JSON object but a list"
    shutil.copyfile(desk / "log.csv", spoiled / "c.csv")
    answer = told(desk, endpoint, "import", str(spoiled))
    assert (answer.returncode, len(answer.stderr.splitlines())) == (0, 2)
    rows = [json.loads(line) for line in told(desk, endpoint, "import", str(spoiled), "--json").stdout.splitlines()]
    assert [row["result"] for row in rows] == ["refused", "refused", "present"]


MISTAKES = {
    "nothing there": (("import", "nothing"), "nothing: there is no such file or folder"),
    "nothing known": (("import", "data"), "data: holds no log that is known here"),
    "not a pair": (("import", "log.csv", "--map", "loss"), "--map 'loss' is no pair of names"),
    "twice": (("import", "log.csv", "--map", "loss=a", "--map", "loss=b"), "is mapped already"),
    "one name for many": (("import", "logs", "--run-name", "x"), "--run-name names one run: there are 2 runs"),
    "an unknown format": (("import", "log.csv", "--from", "paper"), "'paper' is not one of"),
    "a wrong format": (("import", "log.csv", "--from", "wandb"), "does not begin as a log of W&B does"),
    "a run nobody knows": (("export", "nobody", "x"), "no run 'nobody'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(desk: Path, endpoint: EndpointProcess, mistake: str) -> None:
    words, said = MISTAKES[mistake]
    (desk / "data").mkdir(exist_ok=True)
    assert told(desk, endpoint, "migrate").returncode == 0
    answer = told(desk, endpoint, *words)
    assert answer.returncode == 2
    [line] = answer.stderr.splitlines()
    assert line.startswith("pilothouse: ")
    assert said in line


def test_without_a_stack_the_archive_of_the_data_directory_is_opened_for_the_command(
    desk: Path, tmp_path: Path
) -> None:
    refused = cli("export", "log", "x", data_dir=tmp_path)
    assert refused.returncode == 2
    assert "holds no archive" in refused.stderr
    answer = cli("import", str(desk / "log.csv"), "--json", data_dir=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout)["result"] == "imported"
    answer = cli("export", "log", str(tmp_path / "log.pilothouse"), "--json", data_dir=tmp_path)
    assert json.loads(answer.stdout)["step_rows"] == 50
    assert cli("runs", data_dir=tmp_path).returncode == 2  # nothing runs on, afterwards


def test_the_shell_completes_formats_and_runs(desk: Path, endpoint: EndpointProcess) -> None:
    assert told(desk, endpoint, "migrate").returncode == 0
    assert told(desk, endpoint, "import", "log.csv", "--run-name", "to-complete").returncode == 0

    def completed(words: str) -> str:
        env = environ(desk / "data") | {"PILOTHOUSE_CLICKHOUSE_URL": endpoint.clickhouse_url}
        env |= {"_PILOTHOUSE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
        program = "import sys; sys.argv = ['pilothouse']; from pilothouse.cli.main import app; app()"
        command = [CLI[0], "-P", "-c", program]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60).stdout

    assert completed("pilothouse import x --from ").split()[:2] == ["tensorboard", "mlflow"]
    assert "to-complete" in completed("pilothouse export ").split()


def test_no_tracker_is_imported_to_read_what_it_wrote() -> None:
    program = (
        "import sys; from pathlib import Path; from pilothouse.storage.imports.finding import find\n"
        "from pilothouse.storage.imports.survey import survey\n"
        f"[survey(source, {{}}) for source in find(Path({str(LOGS)!r})).sources]\n"
        "print(sorted({'wandb', 'mlflow', 'tensorboard', 'torch', 'google', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout == (
        "[]\n"
    )
