// The parts of a run's page that are words and tables: each makes elements of what was told.

import { action, ago, clock, facts, h, margin, number, phase, plain, runLink, table } from "./dom.js";

const STATUS = { True: "good", False: "bad", Unknown: "soft" };
const MOST_RECEIPTS = 32;
const row = (...cells) => h("tr", {}, cells);
const cell = (...children) => h("td", {}, ...children);
const first = (...children) => h("th", { scope: "row" }, ...children);
const nothing = (words) => h("p", { class: "soft" }, words);

export function head(name, told) {
  const links = [["report", "whole report"], ["similar", "runs like it"]].map(([view, text]) => h("a", { href: `#/${view}/${encodeURIComponent(name)}` }, text));
  return h("div", {}, h("h1", {}, plain(name)), h("p", { class: "tools" }, links), facts([
    ["phase", phase(told.phase)], ["margin", margin(told.margin)], ["stability score", number(told.stability_score, 3)],
    ["step", number(told.last_step)], ["attempt", `${number(told.attempt)} of ${number(told.attempts)}`], ["ranks", number(told.world_size)],
    ["model", plain(told.model || "–")], ["code", plain(String(told.code_version || "–").slice(0, 12))], ["heard", ago(told.last_at)],
    ["started", `${clock(told.started_at)} UTC`], ["outcome", plain(told.outcome || "goes on")],
  ]));
}

export function incidents(name, rows) {
  if (!rows.length) return [];
  return [h("h2", {}, "Incidents"), table("Incidents", ["incident", "from step", "seen at", "over at", "outcome", "steps lost"], [...rows].reverse().map((each) => h("tr", { "data-key": each.incident_id },
    first(h("a", { href: `#/incident/${encodeURIComponent(name)}/${encodeURIComponent(each.incident_id)}` }, `${plain(each.condition)}: ${plain(each.reason)}`)),
    cell(number(each.onset_step)), cell(number(each.opened_step)), cell(number(each.resolved_step)),
    h("td", { class: each.outcome ? "" : "bad" }, plain(each.outcome || "open")), cell(number(each.steps_lost)))))];
}

export function conditions(rows) {
  if (!rows.length) return nothing("nothing was judged yet");
  const order = { False: 0, Unknown: 1, True: 2 };
  return table("Conditions", ["condition", "status", "why", "since step", "evidence"], [...rows].sort((a, b) => order[a.status] - order[b.status]).map((each) => row(
    first(plain(each.condition)),
    h("td", { class: STATUS[each.status] }, each.status),
    cell(h("b", {}, plain(each.reason)), ` ${plain(each.message)}`),
    cell(number(each.since_step)),
    h("td", { class: "small" }, Object.entries(each.evidence || {}).map(([key, value]) => `${plain(key)} ${number(value)}`).join(", ")))));
}

export function interventions(rows) {
  if (!rows.length) return nothing("none");
  return table("Interventions", ["step", "what", "why", "state", "applied by", "effect"], [...rows].reverse().map((each) => h("tr", { "data-key": each.intervention_id },
    cell(number(each.proposed_step)),
    first(action(body(each))),
    cell(`${plain(each.rule)}: ${plain(each.reason)}`),
    cell(plain(each.state), each.approved_by ? ` by ${plain(each.approved_by)}` : "", each.declined_by ? ` by ${plain(each.declined_by)}` : ""),
    cell(each.ranks_applied ? `${each.ranks_applied} of ${each.world_size} ranks at step ${(each.applied_steps || []).join(", ")}` : "–", receipts(each.receipts)),
    cell(plain(each.verification || "–"), each.verification_reason ? h("small", {}, ` ${plain(each.verification_reason)}`) : null))));
}

function body(each) {
  try { return { action: each.action, ...JSON.parse(each.action_body) }; } catch { return { action: each.action }; }
}

function receipts(rows) {
  if (!rows.length) return null;
  const change = (each) => Object.keys({ ...each.before, ...each.after }).map((name) => `${plain(name)} ${number(each.before[name])} → ${number(each.after[name])}`).join(", ");
  return h("details", {}, h("summary", {}, `${rows.length} receipts`), h("ul", { class: "plain small" },
    rows.slice(0, MOST_RECEIPTS).map((each) => h("li", {}, `rank ${number(each.rank)} ${plain(each.outcome)} at step ${number(each.step)}`, change(each) ? `: ${change(each)}` : "", each.reason ? ` (${plain(each.reason)})` : "")),
    rows.length > MOST_RECEIPTS ? h("li", {}, `and ${rows.length - MOST_RECEIPTS} more`) : null));
}

export function checkpoints(rows) {
  if (!rows.length) return nothing("none was announced");
  return table("Checkpoints", ["step", "saved", "size", "restored", "trouble"], rows.slice(-12).reverse().map((each) => row(
    cell(number(each.step)), cell(`${clock(each.at)} UTC`), cell(each.size_bytes ? `${number(each.size_bytes / 1e6, 3)} MB` : "–"),
    cell(each.times_restored ? `${each.times_restored} times` : "–"), h("td", { class: "bad" }, each.rejected ? plain(each.rejected_reason) : ""))));
}

export function policy(told) {
  if (!told) return nothing("none: nothing is done");
  return h("div", {},
    h("p", {}, h("b", {}, plain(told.name)), `, mode ${plain(told.mode)}, since ${clock(told.at)} UTC by ${plain(told.who)}; `, h("a", { href: "#/policies" }, plain(told.policy_hash).slice(0, 12))),
    h("details", {}, h("summary", {}, `${told.rules.length} rules`), h("pre", { tabindex: 0 }, plain(told.text).replaceAll("⏎", "\n"))));
}

export function story(rows) {
  if (!rows.length) return nothing("nothing yet");
  return table("Events", ["when", "step", "rank", "what", "told"], [...rows].reverse().map((each) => h("tr", { "data-key": `${each.topic} ${each.event_id}` },
    cell(clock(each.at).slice(11)), cell(number(each.step)), cell(number(each.rank)),
    first(plain(each.kind)), h("td", { class: "small" }, plain(each.told)))));
}

export function jobLog(rows) {
  if (!rows.length) return nothing("no line was captured: `run.capture_logs()` keeps them");
  return h("pre", { tabindex: 0, "aria-label": "The job's log" }, rows.map((each) => `${clock(each.at).slice(11)} ${each.rank ?? ""} ${each.level} ${plain(each.text).replaceAll("⏎", "\n")}\n`).join(""));
}
