"""Grafana's dashboards as they are written: what each panel asks, and of whom. For the tests of them."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from .composed import COMPOSE

GRAFANA = COMPOSE / "grafana"
BOARDS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted((GRAFANA / "dashboards").glob("*.json"))
}
ARCHIVE, FIGURES = "pilothouse-archive", "pilothouse-figures"
RULES = ("rules.yml", "hosts.yml")


class Asked(NamedTuple):
    """One question of one panel."""

    board: str
    panel: str
    text: str
    kind: str


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of them, those in rows too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def asked_of(source: str) -> list[Asked]:
    """What panels ask of the source with this uid."""
    return [
        Asked(name, panel["title"], target.get("rawSql") or target["expr"], target.get("queryType", panel["type"]))
        for name, board in BOARDS.items()
        for panel in panels(board)
        for target in panel.get("targets", ())
        if target["datasource"]["uid"] == source
    ]


def as_sent(text: str, run: str) -> str:
    """What Grafana's plugin for ClickHouse sends: the last day, by minutes, of one run."""
    now = int(time.time()) + 3_600
    between = rf"\1 >= toDateTime({now - 90_000}) AND \1 <= toDateTime({now})"
    text = re.sub(r"\$__timeFilter\(([^)]+)\)", between, text)
    text = re.sub(r"\$__timeInterval\(([^)]+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)", text)
    filled = text.replace("${run:sqlstring}", f"'{run}'").replace("${metric:sqlstring}", "'loss','grad_norm'")
    assert "$" not in filled, filled
    return filled


def rules() -> list[dict[str, Any]]:
    """Every rule of Prometheus' files."""
    files = [yaml.safe_load((COMPOSE / "prometheus" / name).read_text()) for name in RULES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Every expression of a panel, and of a rule."""
    return [*(asked.text.replace("$run", "a") for asked in asked_of(FIGURES)), *(rule["expr"] for rule in rules())]


KEYWORDS = frozenset(
    {"and", "or", "unless", "by", "on", "offset", "bool", "group_left", "group_right", "sum", "max", "min"}
)


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for: names that are no function, keyword, label or number."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}", " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\[[^\]]*\]", " ", bare)
    words = re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])", bare)
    return {word for word in words if word not in KEYWORDS and not re.fullmatch(r"\d*[smhdwy]", word)}
