// One run: how it stands and why, its curves, what was done, what waits, what governs it.

import { get, ofRun } from "./api.js";
import { draw, shadesOf } from "./chart.js";
import { h, plain, settle } from "./dom.js";
import { orders } from "./orders.js";
import { ranks } from "./ranks.js";
import { checkpoints, conditions, head, incidents, interventions, jobLog, policy, story } from "./run_parts.js";
import { proposal } from "./waiting.js";

const FIRST = ["loss", "train_loss", "train/loss", "val_loss", "grad_norm", "train/grad_norm", "lr", "learning_rate", "train/lr"];
const MARGIN = "stability margin", POINTS = 1000, STORY = 60, LINES = 100;
const WARNING = 30; // as Python's logging counts

export function run(target, name) {
  const part = (id) => h("section", { id, "aria-label": id });
  const parts = Object.fromEntries(["head", "asked", "orders", "conditions", "incidents", "curves", "ranks", "interventions", "checkpoints", "policy", "events", "log"].map((id) => [id, part(id)]));
  target.append(...Object.values(parts));
  const charts = new Map(), cards = new Map();
  const more = h("select", { "aria-label": "Another curve", onchange: () => { const wanted = more.value; more.value = ""; if (wanted) chart(wanted); } });
  parts.curves.append(h("h2", {}, "Curves"), more);
  parts.orders.append(orders(name));
  const heat = ranks(parts.ranks);
  const grave = h("select", { "aria-label": "Which lines", onchange: () => lines() }, h("option", { value: 0 }, "every line"), h("option", { value: WARNING }, "warnings and worse"));
  const logged = h("div", {});
  parts.log.append(h("h2", {}, "The job's log"), h("p", { class: "tools" }, grave), logged);
  let told = null, evaluations = new Map();

  async function rowsOf(curve) {
    if (curve === MARGIN) return (await get(ofRun(name, "/margin", `limit=${POINTS}`))).map((each) => point(each.step, each.margin));
    if (evaluations.has(curve)) return evaluations.get(curve);
    return get(ofRun(name, "/series", `metric=${encodeURIComponent(curve)}&points=${POINTS}`));
  }

  async function chart(curve) {
    if (!charts.has(curve)) {
      const figure = h("figure", {}); // in the order in which they are asked for, whichever answer is first
      parts.curves.append(figure);
      charts.set(curve, { figure });
    }
    const known = charts.get(curve);
    const rows = await rowsOf(curve);
    if (known.renew) return known.renew(rows);
    known.figure.replaceChildren();
    return Object.assign(known, await draw(known.figure, plain(curve), rows, shades, marks));
  }
  const shades = () => shadesOf(told.phases, told.last_step ?? 0);
  const marks = () => [
    ...told.interventions.flatMap((each) => (each.applied_steps ?? []).map((step) => ({ step, kind: "intervention" }))),
    ...told.incident_list.map((each) => ({ step: each.onset_step, kind: "incident" })),
    ...told.checkpoints.map((each) => ({ step: each.step, kind: "checkpoint" })),
  ];

  async function lines() {
    settle(logged, jobLog(await get(ofRun(name, "/logs", `severity=${grave.value}&limit=${LINES}`))));
  }

  function paint(events) {
    settle(parts.head, head(name, told));
    // A card in which somebody writes is left as it is.
    settle(parts.asked, told.waiting.map((each) => cards.get(each.intervention_id) ?? proposal(each)));
    cards.clear();
    for (const card of parts.asked.children) cards.set(card.dataset.key, card);
    settle(parts.incidents, incidents(name, told.incident_list));
    settle(parts.conditions, h("h2", {}, "Conditions"), conditions(told.conditions));
    settle(parts.interventions, h("h2", {}, "Interventions"), interventions(told.interventions));
    settle(parts.checkpoints, h("h2", {}, "Checkpoints"), checkpoints(told.checkpoints));
    settle(parts.policy, h("h2", {}, "Policy in force"), policy(told.policy));
    settle(parts.events, h("h2", {}, "Events"), story(events));
    settle(more, h("option", { value: "" }, "another curve …"), [MARGIN, ...evaluations.keys(), ...told.metric_names].map((each) => h("option", { value: each }, plain(each))));
  }

  return {
    title: plain(name),
    wants: (runs) => runs.includes(name),
    end: () => { for (const each of charts.values()) each.end?.(); heat.end(); },
    repaint: () => {
      heat.repaint();
      for (const [curve, known] of charts) { known.end?.(); charts.set(curve, { figure: known.figure }); chart(curve); }
    },
    renew: async () => {
      const asked = [get(ofRun(name)), get(ofRun(name, "/events", `story=true&limit=${STORY}`)), get(ofRun(name, "/evaluations")), get(ofRun(name, "/ranks"))];
      const [whole, events, found, times] = await Promise.all(asked);
      told = whole;
      evaluations = byEvaluation(found);
      paint(events);
      heat.renew(told, times);
      const first = FIRST.filter((each) => told.metric_names.includes(each)).slice(0, 4);
      await Promise.all([...[...first, ...[...evaluations.keys()].slice(0, 2), ...charts.keys()].filter((each, at, all) => all.indexOf(each) === at).map(chart), lines()]);
    },
  };
}

const finite = (value) => typeof value === "number" && Number.isFinite(value);
const point = (step, value) => ({ to_step: step, mean: value, least: value, greatest: value, non_finite: value === null || finite(value) ? 0 : 1 });

// Each evaluation by its split and metric, over steps; of one step the last word counts.
function byEvaluation(rows) {
  const found = new Map();
  for (const row of rows) {
    const name = `evaluation ${[row.split, row.metric].filter(Boolean).join("/")}`;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(point(row.step, row.value));
  }
  return found;
}
