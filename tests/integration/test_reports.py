"""Reports out of a real archive, by the command line: a run, several, a fleet; and their pages in a real browser."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.codec import from_json
from pilothouse.events.commands import RunAnnotated
from pilothouse.events.envelope import Decision
from pilothouse.events.telemetry import (
    DataProfiled,
    EvalCompleted,
    LogLines,
    ResourcesSampled,
    RunEnded,
    RunStarted,
    SampleRecorded,
)
from pilothouse.events.union import AnyDecision, AnyInput, Record
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive
from pilothouse.storage.connect import connect
from pilothouse.tests.archive_events import NAN, Writer, logged
from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.browser import Tab, browser
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.replay.history import DEMO, committed_decisions, records
from pilothouse.tests.stack_fixture import refused

EVIL = "evil <img src=x onerror=alert(1)>"
HOSTILE = "</pre></title><script>alert(1)</script>\x1b[31m\u202eline\n| `x` |"
HOUR = 3_600_000_000
LONG_AGO = 40_000 * HOUR


@dataclass
class History:
    """A run as it was judged."""

    run_id: str
    records: list[Record] = field(default_factory=list)
    decisions: list[AnyDecision] = field(default_factory=list)


def demo(run_id: str) -> History:
    """The committed run of the demo: real from end to end, governed, with a rollback."""
    told = [from_json(line) for line in committed_decisions(DEMO)]
    return History(
        run_id,
        [record._replace(event=_named(record.event, run_id)) for record in records(DEMO)],
        [_named(one, run_id) for one in told if isinstance(one, Decision)],
    )


def _named(event: Any, run_id: str) -> Any:
    """Under another name and long ago: when the demo was run must not matter."""
    moved: dict[str, Any] = {"at": event.at - LONG_AGO}
    if event.kind == "step_batch":
        moved["times"] = tuple(at - LONG_AGO for at in event.times)
    return event.model_copy(update=moved if event.kind == "tick" else moved | {"run_id": run_id})


def evil() -> list[AnyInput]:
    """A run of which every text is out to do harm, and that ended in no good way, an hour ago."""
    writer = Writer(EVIL)
    start = time.time_ns() // 1_000 - HOUR
    sample = writer.tell(SampleRecorded, step=1, name=HOSTILE, prompt=HOSTILE, output=HOSTILE)
    told = [
        writer.tell(
            RunStarted, reason="start", first_step=0, world_size=2, model=HOSTILE, team=HOSTILE, cost_per_hour=7.0,
            config={HOSTILE: HOSTILE, "nested": {"lr": 0.1}}, tags={"a": HOSTILE},
            links={"tracker": "https://example.org/<x>", "trap": "javascript:alert(1)"}, environment={"host": HOSTILE},
        ),
        writer.steps([0, 1, 2, 3], loss=[3.0, 2.0, NAN, 2.5], **{"x<y>": [1.0, 2.0, 3.0, 4.0]}),
        sample,
        writer.tell(EvalCompleted, step=2, split="<b>", metrics={"<i>": 1.0}),
        writer.tell(ResourcesSampled, values={"gpu_util": 0.4, "energy_kwh": 2.5, "<u>": 1.0}),
        writer.tell(DataProfiled, step=3, feature=HOSTILE, numbers={"mean": 1.0}),
        writer.tell(LogLines, lines=[{"at": 1, "step": 1, "level": "ERROR", "logger": "x", "text": HOSTILE}]),
        writer.tell(RunEnded, step=3, outcome="crashed", error=HOSTILE),
    ]  # fmt: skip
    for number, (who, rating) in enumerate((("ada", 0.0), ("bob", 0.5), ("ada", 1.0))):
        about = {"about": sample.event_id, "rating": rating, "text": HOSTILE}
        told.append(RunAnnotated(run_id=EVIL, writer_id=f"note-{number}", seq=1, at=start + number, who=who, **about))
    return [event.model_copy(update={"at": start + 1_000_000 * index}) for index, event in enumerate(told)]


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> RunArchive:
    kept = RunArchive(endpoint, tmp_path_factory.mktemp("home"))
    for run_id in ("first-twin", "other-twin"):
        kept.keep(demo(run_id))  # type: ignore[arg-type]  # what it reads of a run is what a history has
    Archive(connect(Settings(clickhouse_url=endpoint.clickhouse_url))).insert(logged(evil(), partition=7))
    return kept


def told(archive: RunArchive, *words: str) -> Any:
    answer = archive.cli(*words, "--json")
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
    return json.loads(answer.stdout)


# ------------------------------------------------------------------------------------------------------------- a run


def test_a_report_has_the_whole_story_of_a_run(archive: RunArchive) -> None:
    whole = told(archive, "report", "first-twin")
    rollback = next(one for one in whole["interventions"] if one["action"] == "rollback")
    assert {receipt["rank"] for receipt in rollback["receipts"]} == set(range(whole["run"]["world_size"]))
    assert len(whole["attempts"]) == 1 + sum(one["action"] == "rollback" for one in whole["interventions"])
    assert whole["effort"]["steps_undone"] == sum(row["steps_undone"] for row in whole["attempts"]) > 0
    assert 0 < whole["effort"]["wasted_device_hours"] < whole["effort"]["device_hours"]
    incident = whole["incidents"][0]
    assert incident["evidence"]
    assert incident["opened_step"] >= incident["onset_step"]
    assert any("rollback" in line["what"] for line in incident["timeline"])
    assert [row["place"] for row in whole["checkpoints"]] == list(range(1, len(whole["checkpoints"]) + 1))
    assert not whole["checkpoints"][0]["suspect"]
    assert whole["checkpoints"][0]["evaluation"] is not None
    assert {"compute_s", "data_wait_s"} <= set(whole["step_time"]["parts"])
    missing = {row["what"] for row in whole["missing"]}
    assert {"Cost", "Sample outputs"} <= missing
    assert not {"Training loss", "Evaluations", "Checkpoints"} & missing


def test_samples_have_the_last_word_of_each_person(archive: RunArchive) -> None:
    sample = told(archive, "rate", EVIL)
    assert {one["who"]: one["rating"] for one in sample["ratings"]} == {"ada": 1.0, "bob": 0.5}
    assert sample["mean_rating"] == 0.75


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def page(archive: RunArchive, file: Path, *words: str) -> Path:
    answer = archive.cli(*words, "--html", "-o", str(file))
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
    return file


def lightness(tab: Tab, what: str) -> float:
    colour = str(tab.value(f"getComputedStyle(document.documentElement).{what}"))
    return sum(map(int, colour.strip("rgb()").split(","))) / 3


def test_the_page_of_a_run_needs_nothing_else_on_a_screen_a_phone_and_paper(
    archive: RunArchive, tab: Tab, tmp_path: Path
) -> None:
    file = page(archive, tmp_path / "demo.html", "report", "first-twin")
    tab.open(file)
    for width, scheme in ((1200, "light"), (400, "dark")):
        tab.sized(width)
        tab.seen_as(scheme=scheme)
        assert tab.value("document.documentElement.scrollWidth <= innerWidth"), width
        assert tab.value("document.querySelectorAll('figure path.line').length") >= 4
        assert tab.value("document.querySelectorAll('rect.shade').length") > 4
        assert tab.value("[...document.querySelectorAll('.pin')].map(pin => pin.textContent).includes('A')")
        assert (lightness(tab, "backgroundColor") < 64, lightness(tab, "color") > 192) == (scheme == "dark",) * 2
    assert set(tab.asked) == {file.absolute().as_uri()}
    assert tab.complaints == []
    assert tab.paper().count(b"/Type /Page\n") >= 2


def test_what_strangers_wrote_is_shown_and_does_nothing(archive: RunArchive, tab: Tab, tmp_path: Path) -> None:
    tab.open(page(archive, tmp_path / "evil.html", "report", EVIL))
    assert tab.value("document.querySelector('h1').textContent") == f"Run {EVIL}"
    assert tab.value("document.body.textContent.includes('rated 75%')")
    assert tab.value("document.querySelectorAll('script, img, b b, i, u, iframe, [onerror]').length") == 0
    assert set(tab.value("[...document.links].map(link => link.protocol)")) == {"file:", "https:"}
    assert tab.value("document.body.textContent.includes('</script>\\\\x1b[31m\\\\u202eline')")
    assert not tab.value("/[\\x1b\\u202e]/.test(document.documentElement.outerHTML)")
    assert tab.complaints == []


# ------------------------------------------------------------------------------------------------- several, and all


def test_a_comparison_names_what_differs_and_where_decisions_part(archive: RunArchive) -> None:
    found = told(archive, "compare", "first-twin", EVIL, "--by", "tokens")
    [parting] = found["partings"]
    assert (parting["first"]["number"], parting["first"]["kinds"][1]) == (1, None)
    assert "run.model" in [row["name"] for row in found["differences"]]
    assert found["by"] == "tokens"
    assert [len(point["values"]) for point in found["curves"]["loss"]["at"]] == [2] * 5


def test_similar_says_what_was_done_the_last_time_and_whether_it_helped(archive: RunArchive) -> None:
    found = told(archive, "similar", "first-twin")
    assert found["runs"][0]["run_id"] == "other-twin"
    assert found["runs"][0]["likeness"] == 1.0
    first = found["incidents"][-1]
    assert first["nearest"][0]["run_id"] == "other-twin"
    assert {one["action"] for one in first["worked"]} >= {"rollback"}


def test_the_review_of_a_time_counts_what_was_heard_of_in_it(archive: RunArchive) -> None:
    found = told(archive, "report", "--fleet", "--since", "2h")
    assert [row["run_id"] for row in found["failed"]] == [EVIL]
    assert found["outcomes"] == {"crashed": 1}
    assert found["figures"]["energy, kWh"] == {"now": 2.5, "before": None}
    everything = told(archive, "report", "--fleet", "--since", "9999w")
    assert everything["figures"]["runs"]["now"] == 3
    assert sum(row["incidents"] for row in everything["signatures"]) >= 2
    assert "What to change" in archive.cli("report", "--fleet", "--since", "9999w", "--md").stdout


def test_the_least_stable_runs_come_first_and_those_without_a_score_last(archive: RunArchive) -> None:
    shown = [json.loads(line) for line in archive.cli("runs", "--sort", "stability", "--json").stdout.splitlines()]
    scores = [row["stability_score"] for row in shown]
    assert scores[-1] is None
    assert scores[:-1] == sorted(scores[:-1])


@pytest.mark.parametrize(
    "words, said",
    [
        (("report",), "say which report"),
        (("report", "first-twin", "--fleet"), "say which report"),
        (("report", "first-twin", "--since", "7d"), "--since goes with --fleet"),
        (("report", "--fleet", "--since", "soon"), "'soon' is no duration"),
        (("report", "first-twin", "--html", "--json"), "choose one of --html, --md and --json"),
        (("report", "--fleet", "-o", "/nowhere/week.html"), "cannot be written to /nowhere/week.html: No such file"),
        (("report", "nobody"), "no run 'nobody'"),
        (("compare", "first-twin"), "two different runs at least"),
        (("compare", "first-twin", "first-twin"), "two different runs at least"),
        (("compare", "first-twin", "--against", "first-twin"), "it stands on both sides"),
        (("rate", "first-twin", "last"), "rate with both"),
        (("rate", "first-twin", "last", "good"), "has recorded no samples"),
        (("rate", EVIL, "nothing", "good"), "has no sample 'nothing'"),
        (("rate", EVIL, "last", "great"), "'great' is no rating"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_write(archive: RunArchive, words: tuple[str, ...], said: str) -> None:
    assert said in refused(archive.cli(*words))
