// One run: how it stands and why, its curves, what was done, what waits, what governs it.

import { get, ofRun } from "./api.js";
import { draw, shadesOf } from "./chart.js";
import { action, ago, clock, h, margin, number, phase, plain, table } from "./dom.js";
import { orders } from "./orders.js";
import { proposal } from "./waiting.js";

const FIRST = ["loss", "train_loss", "train/loss", "val_loss", "grad_norm", "train/grad_norm", "lr", "learning_rate", "train/lr"];
// What comes every second, and says nothing by itself, is not among them.
const TOLD = ["run_started", "run_ended", "stage_changed", "recipe_changed", "telemetry_gap", "condition_changed", "phase_changed",
  "incident_opened", "incident_resolved", "intervention_proposed", "intervention_approved", "intervention_declined", "intervention_issued",
  "intervention_expired", "intervention_receipt", "intervention_verified", "checkpoint_saved", "checkpoint_restored", "checkpoint_rejected",
  "operator_command", "order_answered", "policy_activated", "advice_requested", "advice_given", "advice_judged", "annotated"].map((kind) => `kind=${kind}`).join("&");
const STATUS = { True: "good", False: "bad", Unknown: "soft" };

export function run(target, name) {
  const part = (id) => h("section", { id, "aria-label": id });
  const parts = Object.fromEntries(["head", "asked", "orders", "conditions", "incidents", "curves", "ranks", "interventions", "checkpoints", "policy", "events"].map((id) => [id, part(id)]));
  target.append(...Object.values(parts));
  const charts = new Map();
  const more = h("select", { "aria-label": "Another metric", onchange: () => { if (more.value) chart(more.value); more.value = ""; } });
  parts.curves.append(h("h2", {}, "Curves"), more);
  parts.orders.append(orders(name));
  let told = null;

  async function chart(metric) {
    if (!charts.has(metric)) {
      const figure = h("figure", {}); // in the order in which they are asked for, whichever answer is first
      parts.curves.append(figure);
      charts.set(metric, { figure });
    }
    const known = charts.get(metric);
    const rows = await get(ofRun(name, "/series", `metric=${encodeURIComponent(metric)}&points=1000`));
    if (known.renew) return known.renew(rows);
    known.figure.replaceChildren();
    return Object.assign(known, draw(known.figure, plain(metric), rows, shades, marks));
  }
  const shades = () => shadesOf(told.phases, told.last_step ?? 0);
  const marks = () => [
    ...told.interventions.flatMap((each) => (each.applied_steps ?? []).map((step) => ({ step, kind: "intervention" }))),
    ...told.incident_list.map((each) => ({ step: each.onset_step, kind: "incident" })),
    ...told.checkpoints.map((each) => ({ step: each.step, kind: "checkpoint" })),
  ];

  function paint(events) {
    parts.head.replaceChildren(head(name, told));
    const asked = new Set(told.waiting.map((each) => each.intervention_id));
    for (const card of [...parts.asked.children]) if (!asked.has(card.dataset.id)) card.remove();
    for (const each of told.waiting) if (![...parts.asked.children].some((card) => card.dataset.id === each.intervention_id)) {
      const card = proposal(each);
      card.dataset.id = each.intervention_id;
      parts.asked.append(card);
    }
    parts.incidents.replaceChildren(...incidents(name, told.incident_list));
    parts.conditions.replaceChildren(h("h2", {}, "Conditions"), conditions(told.conditions));
    parts.ranks.replaceChildren(...ranks(told));
    parts.interventions.replaceChildren(h("h2", {}, "Interventions"), interventions(told.interventions));
    parts.checkpoints.replaceChildren(h("h2", {}, "Checkpoints"), checkpoints(told.checkpoints));
    parts.policy.replaceChildren(h("h2", {}, "Policy in force"), policy(told.policy));
    parts.events.replaceChildren(h("h2", {}, "Events"), log(events));
    const names = told.metric_names;
    more.replaceChildren(h("option", { value: "" }, "another metric …"), ...names.map((each) => h("option", { value: each }, plain(each))));
  }

  return {
    title: plain(name),
    wants: (runs) => runs.includes(name),
    end: () => { for (const each of charts.values()) each.end?.(); },
    renew: async () => {
      const [whole, events] = await Promise.all([get(ofRun(name)), get(ofRun(name, "/events", `limit=60&${TOLD}`))]);
      told = whole;
      paint(events);
      const first = FIRST.filter((each) => told.metric_names.includes(each)).slice(0, 4);
      await Promise.all([...new Set([...first, ...charts.keys()])].map((metric) => chart(metric)));
    },
  };
}

function head(name, told) {
  const facts = [
    ["phase", phase(told.phase)], ["margin", margin(told.margin)], ["stability score", number(told.stability_score, 3)],
    ["step", number(told.last_step)], ["attempt", `${number(told.attempt)} of ${number(told.attempts)}`], ["ranks", number(told.world_size)],
    ["model", plain(told.model || "–")], ["code", plain(String(told.code_version || "–").slice(0, 12))], ["heard", ago(told.last_at)],
    ["started", `${clock(told.started_at)} UTC`], ["outcome", plain(told.outcome || "goes on")],
  ];
  const links = [["report", "whole report"], ["similar", "runs like it"]].map(([view, text]) => h("a", { href: `#/${view}/${encodeURIComponent(name)}` }, text));
  return h("div", {}, h("h1", {}, plain(name)), h("p", { class: "tools" }, links), h("dl", {}, facts.map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value)))));
}

function incidents(name, rows) {
  if (!rows.length) return [];
  return [h("h2", {}, "Incidents"), table(["incident", "from step", "seen at", "over at", "outcome", "steps lost"], [...rows].reverse().map((each) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: `#/incident/${encodeURIComponent(name)}/${encodeURIComponent(each.incident_id)}` }, `${plain(each.condition)}: ${plain(each.reason)}`)),
    h("td", {}, number(each.onset_step)), h("td", {}, number(each.opened_step)), h("td", {}, number(each.resolved_step)),
    h("td", { class: each.outcome ? "" : "bad" }, plain(each.outcome || "open")), h("td", {}, number(each.steps_lost)))))];
}

function conditions(rows) {
  if (!rows.length) return h("p", { class: "soft" }, "nothing was judged yet");
  const order = { False: 0, Unknown: 1, True: 2 };
  return table(["condition", "status", "why", "since step", "evidence"], [...rows].sort((a, b) => order[a.status] - order[b.status]).map((each) => h("tr", {},
    h("th", { scope: "row" }, plain(each.condition)),
    h("td", { class: STATUS[each.status] }, each.status),
    h("td", {}, h("b", {}, plain(each.reason)), ` ${plain(each.message)}`),
    h("td", {}, number(each.since_step)),
    h("td", { class: "small" }, Object.entries(each.evidence || {}).map(([key, value]) => `${plain(key)} ${number(value)}`).join(", ")))));
}

// A row a metric, a cell a rank: the slower, the darker. The straggler is named by the conditions.
function ranks(told) {
  const times = told.rank_times;
  const names = [...new Set(times.map((each) => each.metric))];
  const all = [...new Set(times.map((each) => each.rank))].sort((a, b) => a - b);
  if (all.length < 2) return [];
  const culprit = told.conditions.find((each) => each.status === "False" && each.evidence?.straggler_rank !== undefined)?.evidence.straggler_rank;
  return [h("h2", {}, "Ranks"), table(["", ...all.map((rank) => (rank === culprit ? `${rank} straggles` : String(rank)))], names.map((metric) => {
    const values = new Map(times.filter((each) => each.metric === metric).map((each) => [each.rank, each.value]));
    const most = Math.max(...values.values());
    return h("tr", {}, h("th", { scope: "row" }, metric), all.map((rank) => h("td", { class: rank === culprit ? "heat culprit" : "heat", style: `--heat:${values.has(rank) && most > 0 ? values.get(rank) / most : 0}` }, number(values.get(rank), 3))));
  }))];
}

function interventions(rows) {
  if (!rows.length) return h("p", { class: "soft" }, "none");
  return table(["step", "what", "why", "state", "applied by", "effect"], [...rows].reverse().map((each) => h("tr", {},
    h("td", {}, number(each.proposed_step)),
    h("th", { scope: "row" }, action(body(each))),
    h("td", {}, `${plain(each.rule)}: ${plain(each.reason)}`),
    h("td", {}, plain(each.state), each.approved_by ? ` by ${plain(each.approved_by)}` : "", each.declined_by ? ` by ${plain(each.declined_by)}` : ""),
    h("td", {}, each.ranks_applied ? `${each.ranks_applied} of ${each.world_size} ranks at step ${(each.applied_steps || []).join(", ")}` : "–"),
    h("td", {}, plain(each.verification || "–"), each.verification_reason ? h("small", {}, ` ${plain(each.verification_reason)}`) : null))));
}

function body(each) {
  try { return { action: each.action, ...JSON.parse(each.action_body) }; } catch { return { action: each.action }; }
}

function checkpoints(rows) {
  if (!rows.length) return h("p", { class: "soft" }, "none was announced");
  return table(["step", "saved", "size", "restored", ""], rows.slice(-12).reverse().map((each) => h("tr", {},
    h("td", {}, number(each.step)), h("td", {}, `${clock(each.at)} UTC`), h("td", {}, each.size_bytes ? `${number(each.size_bytes / 1e6, 3)} MB` : "–"),
    h("td", {}, each.times_restored ? `${each.times_restored} times` : "–"), h("td", { class: "bad" }, each.rejected ? plain(each.rejected_reason) : ""))));
}

function policy(told) {
  if (!told) return h("p", { class: "soft" }, "none: nothing is done");
  return h("div", {},
    h("p", {}, h("b", {}, plain(told.name)), `, mode ${plain(told.mode)}, since ${clock(told.at)} UTC by ${plain(told.who)}; ${plain(told.policy_hash).slice(0, 12)}`),
    h("details", {}, h("summary", {}, `${told.rules.length} rules`), h("pre", { tabindex: 0 }, plain(told.text).replaceAll("⏎", "\n"))));
}

function log(rows) {
  return table(["when", "step", "rank", "what", "told"], [...rows].reverse().map((each) => h("tr", {},
    h("td", {}, clock(each.at).slice(11)), h("td", {}, number(each.step)), h("td", {}, number(each.rank)),
    h("th", { scope: "row" }, plain(each.kind)), h("td", { class: "small" }, gist(each)))));
}

const DULL = new Set(["kind", "at", "run_id", "attempt_id", "attempt", "decision_id", "basis", "policy_hash", "writer_id", "seq", "rank", "step", "evidence", "schema_version", "features", "environment", "text"]);

function gist(each) {
  try {
    const kept = Object.entries(JSON.parse(each.body)).filter(([key, value]) => !DULL.has(key) && value !== "" && value !== null);
    return plain(kept.map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`).join("; ")).slice(0, 400);
  } catch { return plain(each.body).slice(0, 400); }
}
