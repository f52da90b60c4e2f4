"""The overview of one run laid out: what `pilothouse report RUN` writes as HTML or Markdown. Pure.

Called by the command line with what `overview` worked out; `html` and `markdown` write what it returns.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .charts import incident_name, margin_chart, resource_charts, run_charts
from .document import Bar, Bars, Block, Document, Facts, Items, Section, Table, Words, linked, table
from .figures import moment, number, numbers, share, size, span, time_of_day, value_of
from .overview import PARTS_OF_A_STEP
from .run_story import incident_sections, intervention_blocks, sample_blocks

Row = Mapping[str, Any]
MOST_CHECKPOINTS = 20
MOST_ROWS = 60
PHASE_TONES = {"Diverged": "bad", "Unstable": "bad", "Stalled": "warn", "Stressed": "warn"}


def run_page(whole: Row, resource_course: Sequence[Row], made_at: int) -> Document:
    """The page, in the order in which a reader asks."""
    sections = (
        Section("Curves", tuple(run_charts(whole)) or (Words("No metric was logged.", "missing"),)),
        Section("Stability", tuple(_stability(whole))),
        Section("Incidents", tuple(incident_sections(whole))),
        Section("Decisions and their effects", tuple(intervention_blocks(whole))),
        Section("Checkpoints", tuple(_checkpoints(whole))),
        Section("Time, devices and cost", tuple(_effort(whole))),
        Section("Machines", tuple(_machines(whole, resource_course))),
        Section("Data", tuple(_data(whole))),
        Section("Samples", tuple(sample_blocks(whole))),
        Section("Configuration", tuple(_configuration(whole))),
        Section("Notes, orders and the job's own words", tuple(_words(whole))),
        Section("What is not known", tuple(_missing(whole))),
    )
    return Document(f"Run {whole['run']['run_id']}", lead(whole), sections, made_at, _head(whole))


def lead(whole: Row) -> str:
    """The run in one sentence."""
    run, effort = whole["run"], whole["effort"]
    state = run["outcome"] or f"is running ({run['phase']})"
    said = [f"{state.capitalize() if run['outcome'] else 'It ' + state}"]
    said.append(f"at step {number(run['last_step'])} after {span(effort['wall_s'])}")
    count = run["incidents"]
    said.append(f"with {number(count)} incident{'' if count == 1 else 's'}" if count else "without an incident")
    if effort["wasted_share"]:
        said.append(f"and {share(effort['wasted_share'])} of its {_unit(effort)}-hours wasted")
    score = run["stability_score"]
    return " ".join(said) + (f". Stability {number(score, 3)} of 100." if score is not None else ". It was not judged.")


def _head(whole: Row) -> Facts:
    run, effort, judged = whole["run"], whole["effort"], whole["evaluations"]["judged_by"]
    model = " ".join(filter(None, (run["model"], run["model_family"] and f"({run['model_family']})")))
    pairs = [
        ("model", model),
        ("data", " ".join(filter(None, (run["dataset"], run["dataset_version"])))),
        ("code", _code(whole)),
        ("team", run["team"]),
        ("cluster", run["cluster"]),
        ("ranks", number(run["world_size"])),
        ("attempts", number(run["attempts"])),
        ("started", moment(run["started_at"])),
        ("last heard of", moment(run["last_at"])),
        (f"{_unit(effort)}-hours", number(effort["device_hours"], 3)),
        ("cost", number(effort["cost"]) if effort["cost"] is not None else ""),
        ("last evaluation", _last_evaluation(whole, judged)),
    ]
    return Facts(tuple((name, text) for name, text in pairs if text))


def _code(whole: Row) -> str:
    version = whole["configuration"]["code_version"]
    return f"{version[:12]} with uncommitted changes" if whole["configuration"]["code_dirty"] else version[:12]


def _unit(effort: Row) -> str:
    return "GPU" if effort["has_gpus"] else "rank"


def _last_evaluation(whole: Row, judged: Row | None) -> str:
    if judged is None:
        return ""
    own = [
        row
        for row in whole["evaluations"]["values"]
        if (row["split"], row["metric"]) == (judged["split"], judged["metric"])
    ]
    return f"{judged['split']} {judged['metric']} {number(own[-1]['value'])} at step {number(own[-1]['step'])}"


def _stability(whole: Row) -> Iterator[Block]:
    stability = whole["stability"]
    if stability["stability_score"] is not None:
        yield Words(f"Stability score {number(stability['stability_score'], 3)} of 100, over the whole run.")
    chart = margin_chart(whole)
    if chart is not None:
        yield chart
    if stability["time_in_phase"]:
        yield Section("Time in phase", (Bars(tuple(
            Bar(row["phase"], row["share"], f"{share(row['share'])}, {span(row['seconds'])}", row["phase"])
            for row in stability["time_in_phase"]
        )),))  # fmt: skip
    if stability["regimes"]:
        yield Section("Under which conditions of training", (regime_table(stability["regimes"]),))
    rows = [
        (row["condition"], row["status"], row["reason"], number(row["since_step"]), row["message"])
        for row in stability["conditions"]
    ]
    if rows:
        listed = table(("condition", "status", "reason", "since step", "message"), rows)
        yield Section("Conditions at the end", (listed,))
    failed = [row for row in stability["condition_changes"] if row.get("status") == "False"]
    if failed:
        yield Section("Anomalies, with their evidence", (_anomalies(failed),))


def regime_table(regimes: Sequence[Row]) -> Table:
    """Time in each phase, by regime."""
    rows = [
        (row["phase"], row["lr_band"] or "–", row["batch_band"] or "–", row["data_mix"] or "–",
         number(row["world_size"]), span(row["seconds"]), number(row["steps"]), number(row["least_margin"], 3))
        for row in regimes[:MOST_ROWS]
    ]  # fmt: skip
    headings = ("phase", "learning rate", "batch size", "data", "ranks", "time", "steps", "least margin")
    return table(headings, rows)


def _anomalies(failed: Sequence[Row]) -> Table:
    rows = [
        (
            time_of_day(row["at"]), number(row["step"]), str(row.get("condition")), str(row.get("reason")),
            str(row.get("message")), numbers(row.get("evidence") or {}),
        )
        for row in failed[:MOST_ROWS]
    ]  # fmt: skip
    note = f"The first {MOST_ROWS} of {len(failed)}." if len(failed) > MOST_ROWS else ""
    return table(("time", "step", "condition", "reason", "message", "evidence"), rows, note)


def _checkpoints(whole: Row) -> Iterator[Block]:
    found = whole["checkpoints"]
    if not found:
        return
    yield Words("Candidates, the best first: those that are not suspect, by evaluation, then by stability margin.")
    rows = [
        (
            number(row["place"]), number(row["step"]), number(row["attempt"]), row["judged_by"] or "–",
            number(row["evaluation"]), row["phase"] or "–", number(row["margin"], 3), size(row["size_bytes"]),
            "; ".join(row["suspect"]) or "–", number(row["times_restored"]), row["path"],
        )
        for row in found[:MOST_CHECKPOINTS]
    ]  # fmt: skip
    headings = (
        "place",
        "step",
        "attempt",
        "judged by",
        "value",
        "phase",
        "margin",
        "size",
        "suspect",
        "restored",
        "path",
    )
    tones = tuple("warn" if row["suspect"] else "good" if row["place"] == 1 else "" for row in found)
    note = f"The first {MOST_CHECKPOINTS} of {len(found)}." if len(found) > MOST_CHECKPOINTS else ""
    yield Table(headings, tuple(rows), note, tones[:MOST_CHECKPOINTS])  # type: ignore[arg-type]  # a choice of literals


def _effort(whole: Row) -> Iterator[Block]:
    effort, unit = whole["effort"], _unit(whole["effort"])
    pairs = [
        ("from first to last word", span(effort["wall_s"])),
        ("in attempts", span(effort["attempts_s"])),
        ("between attempts", span(effort["between_attempts_s"])),
        (f"{unit}-hours", number(effort["device_hours"])),
        (f"wasted {unit}-hours", f"{number(effort['wasted_device_hours'])} ({share(effort['wasted_share'])})"),
        ("steps undone", number(effort["steps_undone"])),
        ("energy", f"{number(effort['energy_kwh'])} kWh" if effort["energy_kwh"] is not None else "not known"),
        ("cost", number(effort["cost"]) if effort["cost"] is not None else "not known"),
        ("wasted cost", number(effort["wasted_cost"]) if effort["wasted_cost"] is not None else "not known"),
        ("tokens", number(effort["tokens"]) if effort["tokens"] else ""),
        ("tokens per second", number(effort["tokens_per_s"]) if effort["tokens_per_s"] else ""),
    ]
    yield Facts(tuple((name, text) for name, text in pairs if text))
    if effort["wasted_by"]:
        causes = [f"{cause}: {span(seconds)}" for cause, seconds in effort["wasted_by"].items()]
        yield Words(f"Wasted: {', '.join(causes)}.")
    if len(whole["attempts"]) > 1:
        yield Section("Attempts", (_attempts(whole["attempts"]),))
    parts, step = whole["step_time"]["parts"], whole["step_time"]["step_s"]
    if parts and step:
        known = sum(parts.values())
        bars = [
            Bar(PARTS_OF_A_STEP[name], mean / max(step, known), f"{span(mean)}", PARTS_OF_A_STEP[name])
            for name, mean in parts.items()
        ]
        if step > known * 1.001:
            bars.append(Bar("the rest", (step - known) / step, span(step - known), "other"))
        yield Section("Where the time of a step goes (mean)", (Bars(tuple(bars)),))


def _attempts(attempts: Sequence[Row]) -> Table:
    rows = [
        (
            number(row["attempt"]), row["reason"], number(row["first_step"]), number(row["last_step"]),
            number(row["world_size"]), moment(row["started_at"]), number(row["steps_undone"]), row["outcome"] or "–",
        )
        for row in attempts
    ]  # fmt: skip
    headings = ("attempt", "reason", "first step", "last step", "ranks", "started", "steps undone", "outcome")
    return table(headings, rows)


def _machines(whole: Row, course: Sequence[Row]) -> Iterator[Block]:
    environment = whole["configuration"]["environment"]
    if environment:
        pairs = tuple(
            (name, value_of(value)) for name, value in environment.items() if not name.startswith("packages.")
        )
        yield Facts(pairs)
        packages = [
            f"{name.partition('.')[2]} {value_of(value)}"
            for name, value in environment.items()
            if name.startswith("packages.")
        ]
        if packages:
            yield Words("Packages: " + ", ".join(packages))
    yield from resource_charts(course)
    rows = [
        (row["name"], _sampled(row["name"], row["mean"]), _sampled(row["name"], row["least"]),
         _sampled(row["name"], row["greatest"]), number(row["samples"]))
        for row in whole["resources"]
    ]  # fmt: skip
    if rows:
        yield table(("sampled", "mean", "least", "greatest", "samples"), rows)
    dropped = whole["telemetry_dropped"]
    if dropped:
        yield Words(f"Telemetry that nobody will see: {numbers(dropped)}.", "warn")


def _sampled(name: str, value: float) -> str:
    """In the unit that its name ends with."""
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_bytes_per_s"):
        return f"{size(value)}/s"
    return share(value) if name.endswith("_util") else number(value)


def _data(whole: Row) -> Iterator[Block]:
    rows = [
        (
            row["feature"], row["data_schema"] or "–", number(row["profiles"]), number(row["values_seen"]),
            number(row["non_finite"]), numbers(row["first_numbers"]), numbers(row["last_numbers"]),
        )
        for row in whole["data_profiles"]
    ]  # fmt: skip
    if rows:
        headings = ("input", "schema", "profiles", "values", "not finite", "first profile", "last profile")
        yield table(headings, rows)
    drifted = [row for row in whole["stability"]["condition_changes"] if row.get("reason") == "InputDrifted"]
    for row in drifted[:MOST_ROWS]:
        yield Words(f"Drift at step {number(row['step'])}: {row.get('message')}", "warn")
    told = [
        (moment(row["at"]), str(row.get("fact")), row.get("subject") or "–", numbers(row.get("numbers") or {}),
         str(row.get("who")), row.get("note") or "")
        for row in whole["pipeline"]
    ]  # fmt: skip
    if told:
        yield Section(
            "Told by the pipeline around the run", (table(("time", "fact", "subject", "numbers", "who", "note"), told),)
        )


def _configuration(whole: Row) -> Iterator[Block]:
    configuration = whole["configuration"]
    links = tuple((name, linked(str(href), str(href))) for name, href in configuration["links"].items())
    if links:
        yield Section("Links", (Facts(links),))
    if configuration["config"]:
        yield Facts(tuple((name, value_of(value)) for name, value in configuration["config"].items()))
    if configuration["config_changes"]:
        rows = [
            (number(row["attempt"]), row["name"], value_of(row["was"]), value_of(row["now"]))
            for row in configuration["config_changes"]
        ]
        yield Section("Changed by later attempts", (table(("attempt", "name", "was", "now"), rows),))
    recipe = [
        (time_of_day(row["at"]), number(row["step"]), str(row.get("what")), numbers(row.get("numbers") or {}))
        for row in configuration["recipe_changes"]
    ]
    if recipe:
        yield Section("Changed while it ran", (table(("time", "step", "what", "to"), recipe),))
    more = [
        ("tags", numbers(configuration["tags"])),
        ("may be steered by", ", ".join(configuration["steers"])),
        ("policies", ", ".join(f"{row['name']} ({str(row['policy_hash'])[:8]})" for row in configuration["policies"])),
    ]
    yield Facts(tuple((name, text) for name, text in more if text))


def _words(whole: Row) -> Iterator[Block]:
    notes = [(moment(row["at"]), str(row.get("who")), str(row.get("text"))) for row in whole["notes"]]
    if notes:
        yield Section("Notes", (table(("time", "who", "note"), notes),))
    orders = [
        (moment(row["at"]), str(row.get("who")), str(row.get("verb")), str(row.get("why"))) for row in whole["orders"]
    ]
    if orders:
        yield Section("Orders", (table(("time", "who", "order", "why"), orders),))
    errors = [f"rank {row['rank']}, step {number(row['step'])}: {row.get('error')}" for row in whole["errors"]]
    if errors:
        yield Section("Errors that ended ranks", (Items(tuple(errors)),))
    lines = [
        (time_of_day(row["at"]), number(row["rank"]), number(row["step"]), row["level"], row["text"])
        for row in whole["log_lines"]
    ]
    if lines:
        yield Section(
            "Warnings and errors of the job's log", (table(("time", "rank", "step", "level", "text"), lines),)
        )
    if whole["log_lines_dropped"]:
        yield Words(f"Log lines over their bounds: {json.dumps(whole['log_lines_dropped'])}")


def _missing(whole: Row) -> Iterator[Block]:
    rows = [(row["what"], row["remedy"]) for row in whole["missing"]]
    yield table(("what", "what would tell it"), rows) if rows else Words("Nothing that this report looks for.", "good")


def headline(whole: Row) -> str:
    """The letters of its incidents, for tables of several runs."""
    return ", ".join(f"{incident_name(row['number'])} {row['reason']}" for row in whole["incidents"])
