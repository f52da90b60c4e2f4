"""What programs and people get to read."""

import json
import math

import pytest

from pilothouse.cli.event_text import line_of
from pilothouse.cli.rendering import csv_lines, json_line, out, print_line, show_rows, table
from pilothouse.events.actions import CheckpointRef, Rollback, ScaleLr
from pilothouse.events.codec import to_json
from pilothouse.events.decisions import InterventionIssued, PhaseChanged
from pilothouse.events.envelope import LogPlace
from pilothouse.events.event_words import action, number, summary, text_of


def test_json_is_strict_and_names_the_numbers_that_json_has_not() -> None:
    line = json_line({"loss": math.nan, "norm": [math.inf, -math.inf], "step": 3, "none": None, "ok": True})
    assert json.loads(line, parse_constant=pytest.fail) == {
        "loss": "NaN",
        "norm": ["Infinity", "-Infinity"],
        "step": 3,
        "none": None,
        "ok": True,
    }


def test_csv_has_a_header_and_empty_absent_values() -> None:
    assert csv_lines(["a", "b"], [(1, None), ('x"y', math.nan)]) == 'a,b\r\n1,\r\n"x""y",NaN\r\n'


@pytest.mark.parametrize(
    "value, text", [(None, "–"), (math.nan, "NaN"), (0.30000001, "0.3"), (True, "yes"), ([1, 2], "1, 2")]
)
def test_a_person_reads_short_figures(value: object, text: str) -> None:
    assert text_of(value) == text


def test_a_number_of_nothing_is_a_dash() -> None:
    assert number(None) == "–"


def decided(**fields: object) -> dict[str, object]:
    return {
        "at": 1,
        "run_id": "r",
        "attempt_id": "a",
        "attempt": 1,
        "decision_id": "d",
        "basis": LogPlace(1, 0, 9),
        "step": 40,
        "policy_hash": "h",
        **fields,
    }


def test_a_phase_reads_as_a_change_with_its_reason() -> None:
    event = PhaseChanged.model_validate(
        decided(phase="Diverged", was="Normal", reason="LossNotFinite", margin=math.nan)
    )
    row = {"at": 1, "step": 40, "rank": None, "kind": event.kind, "body": to_json(event)}
    assert "step      40" in line_of(row)
    assert line_of(row).endswith("phase_changed          Normal → Diverged (LossNotFinite, margin NaN)")
    seen = json.loads(to_json(event.model_copy(update={"evidence": {"loss": math.nan}})))
    assert summary(event.kind, seen) == "Normal → Diverged (LossNotFinite, margin NaN, loss NaN)"


def test_an_action_shows_its_arguments_and_a_checkpoint_its_step() -> None:
    assert action(ScaleLr(factor=0.5).model_dump()) == "scale_lr factor=0.5"
    checkpoint = CheckpointRef(checkpoint_id="c", step=30, path="/p", manifest_sha256="0" * 64)
    shown = action(Rollback(checkpoint=checkpoint, skip_batches=4, lr_factor=0.5).model_dump())
    assert shown == "rollback checkpoint=step 30 skip_batches=4 lr_factor=0.5"


def test_an_issued_intervention_is_one_line() -> None:
    event = InterventionIssued.model_validate(
        decided(intervention_id="0123456789", rule="spike", action=ScaleLr(factor=0.5), expires_step=60)
    )
    assert summary(event.kind, json.loads(to_json(event))) == "01234567 spike: scale_lr factor=0.5"


HOSTILE = "run\x1b]0;owned\x07\x1b[2J\n\x9b31m<b>\u202eevil"


def test_what_strangers_wrote_does_nothing_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"run": HOSTILE}])
    show_rows([{"run": HOSTILE}], as_json=True)
    show_rows([], empty=HOSTILE.replace("[", "("))
    out().print(HOSTILE, markup=False)
    print_line(HOSTILE)
    print_line(f"{HOSTILE}: {'x' * 9}")
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.splitlines())
    assert "\\x1b]0;owned\\x07\\x1b[2J" in printed
    assert json.loads(next(line for line in printed.splitlines() if line.startswith("{"))) == {"run": HOSTILE}


def test_a_terminal_gets_its_colours_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    console = out()
    with console.capture() as drawn:
        console.print(table([{"phase": "Diverged", "run": HOSTILE}], [("phase", lambda row: row["phase"]),
                                                                      ("run", lambda row: row["run"])]))  # fmt: skip
    assert "\x1b[1;31mDiverged\x1b[0m" in drawn.get()
    assert "\x1b]0" not in drawn.get()
    assert "\x9b" not in drawn.get()
