"""Grafana's dashboards as files; what they ask is asked for real in `integration/test_production_archive`."""

import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from pilothouse.storage.grants import names_of
from pilothouse.tests.composed import COMPOSE
from pilothouse.tests.dashboards import ARCHIVE, BOARDS, FIGURES, GRAFANA, asked_of, expressions, panels

PROMTOOL = shutil.which("promtool")

WANTED = {
    "executive": {"How runs went, by month", "Cost per model", "Promotion cadence", "Most degraded models"},
    "oncall": {
        "Failing jobs now",
        "Retrain triggers",
        "p95 duration of runs",
        "GPU utilisation, by run",
        "Storage errors",
        "Recent alerts",
    },
    "debug": {
        "Log of the job",
        "Loss curves",
        "Checkpoint times",
        "Data schema version",
        "Feature distributions",
        "GPUs, by their exporter",
    },
}
"""The panels that the three views are for."""


def test_each_view_has_the_panels_it_is_for() -> None:
    for name, wanted in WANTED.items():
        assert wanted <= {panel["title"] for panel in panels(BOARDS[name])}


def test_boards_and_panels_are_told_apart_and_lie_beside_each_other() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        ids = [panel["id"] for panel in panels(board)]
        assert len(ids) == len(set(ids))
        for one, other in combinations([panel["gridPos"] for panel in board["panels"]], 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or above, (board["title"], one, other)
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
        assert {link["url"] for link in board["links"]} <= {f"/d/{other['uid']}" for other in BOARDS.values()}


def test_every_question_goes_to_a_source_that_is_provided_by_its_uid() -> None:
    provided = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "pilothouse.yaml").read_text())["datasources"]
    known = {(source["type"], source["uid"]) for source in provided}
    assert known == {("grafana-clickhouse-datasource", ARCHIVE), ("prometheus", FIGURES)}
    for board in BOARDS.values():
        used = [target["datasource"] for panel in panels(board) for target in panel.get("targets", ())]
        used += [panel["datasource"] for panel in panels(board) if "datasource" in panel]
        used += [variable["datasource"] for variable in board["templating"]["list"]]
        assert {(source["type"], source["uid"]) for source in used} <= known


def test_the_reader_of_the_archive_is_the_one_that_is_granted() -> None:
    [archive, figures] = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "pilothouse.yaml").read_text())[
        "datasources"
    ]
    assert archive["jsonData"]["username"] == names_of({})["reader"]
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    assert archive["jsonData"]["host"] in services
    assert figures["url"].removeprefix("http://").partition(":")[0] in services


def test_a_question_names_the_variables_of_its_own_board_and_no_others() -> None:
    names = {name: {variable["name"] for variable in board["templating"]["list"]} for name, board in BOARDS.items()}
    for asked in (*asked_of(ARCHIVE), *asked_of(FIGURES)):
        assert set(re.findall(r"\$\{?(?!__)(\w+)", asked.text)) <= names[asked.board], asked


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
def test_prometheus_reads_every_expression_of_a_panel(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    command = [str(PROMTOOL), "check", "rules", "--lint=none", str(file)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr
