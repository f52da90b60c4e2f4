import pytest

from pilothouse.events.decisions import ConditionType, Phase, Status
from pilothouse.governance.conditions import JUDGED, Condition
from pilothouse.governance.state import DIVERGED_FACTOR, phase_of, stability_margin

PAST_BOUND = DIVERGED_FACTOR


def conditions(**status: Status) -> dict[ConditionType, Condition]:
    known = {name: Condition(name, status="True", reason="Fine") for name in JUDGED}
    for name, value in status.items():
        reason = "NoStepEnded" if name == "Progressing" else f"{name}Is{value}"
        known[name].status, known[name].reason = value, reason  # type: ignore[index]  # by their names
    return known


def phase(
    *, x: float | None = 0.0, outcome: str = "", recovering: bool = False, baseline: bool = True, **status: Status
) -> Phase:
    judged = conditions(**status)
    judged["Stable"].x = x
    margin = stability_margin(judged)
    return phase_of(judged, margin, outcome=outcome, recovering=recovering, has_baseline=baseline)[0]


EVERYTHING_WRONG: dict[str, Status] = {
    "Finite": "False",
    "Stable": "False",
    "Progressing": "False",
    "TelemetryFresh": "False",
    "Recoverable": "False",
}


def test_the_first_phase_that_holds_is_the_phase() -> None:
    """From everything wrong at once, one thing after the other is put right: the table of the design, row by row."""
    wrong = dict(EVERYTHING_WRONG)
    rest = {"x": PAST_BOUND, "recovering": True, "baseline": False}
    assert phase(outcome="Crashed", **rest, **wrong) == "Ended"  # type: ignore[arg-type]
    assert phase(**rest, **wrong) == "Diverged"  # type: ignore[arg-type]
    del wrong["Finite"]
    assert phase(**rest, **wrong) == "Diverged"  # type: ignore[arg-type]
    rest["x"] = PAST_BOUND - 1.0
    assert phase(**rest, **wrong) == "Recovering"  # type: ignore[arg-type]
    rest["recovering"] = False
    assert phase(**rest, **wrong) == "Unknown"  # type: ignore[arg-type]
    del wrong["TelemetryFresh"]
    assert phase(**rest, **wrong) == "Unstable"  # type: ignore[arg-type]
    del wrong["Stable"]
    rest["x"] = 0.0
    assert phase(**rest, **wrong) == "Stalled"  # type: ignore[arg-type]
    del wrong["Progressing"]
    assert phase(**rest, **wrong) == "Stressed"  # type: ignore[arg-type]
    del wrong["Recoverable"]
    assert phase(**rest, **wrong) == "Warmup"  # type: ignore[arg-type]
    rest["baseline"] = True
    assert phase(**rest, **wrong) == "Normal"  # type: ignore[arg-type]


def test_telemetry_that_is_not_known_to_be_fresh_is_never_normal() -> None:
    assert phase(TelemetryFresh="Unknown") == "Unknown"
    assert phase(TelemetryFresh="False") == "Unknown"


@pytest.mark.parametrize("x, margin", [(0.0, 1.0), (1.0, 0.0), (0.25, 0.75), (-5.0, 1.0), (100.0, 0.0)])
def test_the_margin_is_one_at_the_baseline_and_nothing_at_the_threshold(x: float, margin: float) -> None:
    judged = conditions()
    judged["Stable"].x = x
    assert stability_margin(judged) == margin


def test_the_margin_is_that_of_the_worst_known_condition() -> None:
    judged = conditions(Stable="Unknown")
    judged["Stable"].x = 1.0
    judged["Progressing"].x = 0.5
    assert stability_margin(judged) == 0.5
    assert stability_margin(conditions(Finite="False")) == 0.0


def test_there_is_no_margin_where_nothing_is_known() -> None:
    assert stability_margin({name: Condition(name) for name in JUDGED}) is None


def test_a_run_near_its_threshold_is_stressed_while_every_condition_holds() -> None:
    assert phase(x=0.76) == "Stressed"
    assert phase(x=0.74) == "Normal"


def test_every_phase_gives_its_reason() -> None:
    judged = conditions(Progressing="False")
    assert phase_of(judged, 0.0, outcome="", recovering=False, has_baseline=True) == ("Stalled", "NoStepEnded")
    assert phase_of(judged, 0.0, outcome="Lost", recovering=False, has_baseline=True) == ("Ended", "Lost")


@pytest.mark.parametrize("reason", ["Plateau", "GradientVanishing"])
def test_a_run_whose_steps_end_but_lead_nowhere_is_stressed_and_no_incident(reason: str) -> None:
    judged = conditions(Progressing="False")
    judged["Progressing"].reason = reason
    assert not judged["Progressing"].is_grave
    assert phase_of(judged, 0.0, outcome="", recovering=False, has_baseline=True) == ("Stressed", reason)


def test_what_a_run_does_not_generalize_to_is_stress() -> None:
    assert phase(Generalizing="False") == "Stressed"
    assert not conditions(Generalizing="False")["Generalizing"].is_grave
