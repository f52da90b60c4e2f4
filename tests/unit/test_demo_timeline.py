from typing import Any

from pilothouse.cli.demo.account import Account
from pilothouse.cli.demo.timeline import timeline
from pilothouse.events.decisions import InterventionIssued
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss


def thrown_up(position: int, step: int, rank: int) -> float:
    return quiet_loss(step, rank) + (3.0 if 60 <= position < 90 else 0.0)


def account(run: GovernedRun) -> Account:
    """What the archive would tell of this run: its decisions, and the receipts as rows."""
    issued = [decision for decision in run.decisions if isinstance(decision, InterventionIssued)]
    return Account(
        run={"run_id": run.run_id, "incident_list": []},
        phases=[],
        interventions=[_row(command, run) for command in issued],
        validation_losses=[],
        steps_by_rank={},
        decisions=run.decisions,
        replayed=True,
    )


def _row(command: InterventionIssued, run: GovernedRun) -> dict[str, Any]:
    facts = [record.event for record in run.records if record.event.kind == "intervention_receipt"]
    mine = [fact.model_dump() for fact in facts if fact.intervention_id == command.intervention_id]
    step = mine[0]["step"]
    return {
        "intervention_id": command.intervention_id,
        "action": command.action.action,
        "receipts": mine,
        "ranks_by_step": {step: [fact["rank"] for fact in mine]},
    }


def test_the_timeline_tells_an_incident_from_its_evidence_to_its_end() -> None:
    run = GovernedRun(loss=thrown_up).begin().train(140)
    rows = timeline(account(run))
    told = [row["what"] for row in rows]
    story = ["incident opened", "proposed", "issued", "applied by ranks 0, 1, 2, 3", "verified: recovered"]
    places = [told.index(what) for what in story]
    assert places == sorted(places), told
    assert "phase Normal → Unstable" in told
    opened = rows[places[0]]
    assert "loss_z=" in opened["why"]
    assert "since step 60" in opened["why"]


def test_a_quiet_run_has_phases_and_nothing_else() -> None:
    run = GovernedRun().begin().train(60)
    assert {row["what"].split()[0] for row in timeline(account(run))} == {"phase"}
