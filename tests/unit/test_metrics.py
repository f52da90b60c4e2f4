"""What Prometheus is told."""

from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from pilothouse.control_room.metrics import Told, families, severity_of

NOW = 1_000_000_000
RUN = {
    "run_id": 'a"\nb',
    "model": "gpt",
    "team": "t",
    "cluster": "",
    "dataset": "",
    "phase": "Diverged",
    "margin": 0.25,
    "stability_score": None,
    "last_step": 7,
    "world_size": 2,
    "gpu_util": None,
    "last_at": NOW - 5_000_000,
    "attempts": 1,
    "incidents": 1,
    "interventions_issued": 3,
    "interventions_in_vain": 1,
    "steps_lost": 4,
    "rank_hours": 2.5,
    "wasted_rank_hours": 0.5,
    "cost": None,
}
OPEN = {"run_id": RUN["run_id"], "condition": "Stable", "reason": "LossPastBound", "opened_at": NOW - 60_000_000}
WORKER = {"role": "governor", "slot": "0", "at": NOW, "records": 9, "lag": {"t/0": 2, "t/1": 3}, "live": True}


def told(**more: Any) -> str:
    nothing = Told([], [], [], [], [], [], NOW)
    registry = CollectorRegistry(auto_describe=False)

    class Once:
        def collect(self) -> object:
            return families(nothing._replace(**more))

    registry.register(Once())  # type: ignore[arg-type]  # the protocol is what it is asked for
    return generate_latest(registry).decode()


def test_a_run_tells_its_phase_its_margin_and_what_was_spent_and_what_is_not_known_is_not_told() -> None:
    text = told(runs=[RUN])
    names = 'cluster="",dataset="",model="gpt",run="a\\"\\nb",team="t"'
    with_phase = names.replace("run=", 'phase="Diverged",run=')
    assert f"pilothouse_run_phase{{{with_phase}}} 1.0" in text
    assert f"pilothouse_run_margin_ratio{{{names}}} 0.25" in text
    assert f"pilothouse_run_heard_seconds{{{names}}} 5.0" in text
    assert f"pilothouse_run_rank_hours_total{{{names}}} 2.5" in text
    assert "pilothouse_run_cost_total{" not in text
    assert "pilothouse_run_score{" not in text


def test_incidents_of_one_cause_are_one_series_as_old_as_the_oldest() -> None:
    younger = OPEN | {"opened_at": NOW - 10_000_000}
    text = told(runs=[RUN], incidents=[OPEN | {"severities": []}, younger | {"severities": []}])
    [line] = [line for line in text.splitlines() if line.startswith("pilothouse_incident_open_seconds{")]
    assert line.endswith(" 60.0")
    assert 'severity="page"' in line


def test_how_grave_an_incident_is_its_rules_say_and_without_one_its_condition() -> None:
    assert severity_of({"condition": "Stable", "severities": ["ticket"]}) == "ticket"
    assert severity_of({"condition": "Efficient", "severities": ["ticket", "page"]}) == "page"
    assert severity_of({"condition": "Efficient", "severities": []}) == "ticket"
    assert severity_of({"condition": "Finite", "severities": []}) == "page"


def test_a_worker_tells_whether_it_works_and_how_far_it_is_behind() -> None:
    text = told(workers=[WORKER | {"ready": False}])
    who = 'slot="0",worker="governor"'
    assert f"pilothouse_worker_live{{{who}}} 1.0" in text
    assert f"pilothouse_worker_ready{{{who}}} 0.0" in text
    assert f"pilothouse_worker_behind_records{{{who}}} 5.0" in text


def test_a_run_that_goes_on_is_joined_to_its_hosts_and_one_that_ended_to_none() -> None:
    ended = RUN | {"run_id": "done", "phase": "Ended"}
    hosts = [{"run_id": run["run_id"], "host": host} for run in (RUN, ended) for host in ("node-1", "node-2")]
    text = told(runs=[RUN, ended], hosts=[*hosts, {"run_id": "long gone", "host": "node-3"}])
    found = [line for line in text.splitlines() if line.startswith("pilothouse_run_host_info{")]
    assert len(found) == 2
    assert all(f'host="node-{number}"' in line and 'model="gpt"' in line for number, line in enumerate(found, 1))
