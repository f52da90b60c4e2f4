// Every run, what needs a person first.

import { get } from "./api.js";
import { ago, h, margin, number, phase, plain, runLink, say, settle, table } from "./dom.js";

// Those of the second kind are left out on a phone: the run's own view has them.
const HEADINGS = [["compare"], ["run"], ["phase"], ["margin"], ["conditions"], ["waits for you"], ["cost"], ["steps/s", 2], ["step", 2], ["incidents", 2], ["interventions", 2], ["score", 2], ["heard"]];
const FIRST = 200; // rows that are drawn before somebody asks for the others: the worst
const ILL = ["Diverged", "Unstable", "Stalled"];

export function fleet(target) {
  const search = h("input", { type: "search", placeholder: "filter (press /)", "aria-label": "Filter the runs", oninput: () => paint() });
  const over = h("input", { type: "checkbox", id: "ended", onchange: () => paint() });
  const summary = h("p", { class: "lead", role: "status" });
  const none = h("p", { class: "soft" }, "loading …");
  const list = table("Runs", HEADINGS.map(heading), []);
  const body = list.querySelector("tbody");
  list.hidden = true;
  target.append(h("h1", {}, "Fleet"), summary, h("p", { class: "tools" }, search, " ", h("span", {}, over, h("label", { for: "ended" }, " runs that have ended"))), none, list);
  const beside = h("button", { type: "button", hidden: true, onclick: () => { location.hash = `#/compare/${[...chosen].map(encodeURIComponent).join("/")}`; } }, "compare");
  const chosen = new Set();
  const rest = h("button", { type: "button", hidden: true, onclick: () => { all = true; paint(); body.rows[FIRST]?.querySelector("a").focus(); } });
  list.after(rest);
  let all = false;
  const rows = new Map(); // by run: what its row was made of, and the row that stands there
  none.before(beside);
  let runs = null;

  function choose(run, on) {
    if (on) chosen.add(run); else chosen.delete(run);
    beside.hidden = chosen.size < 2;
    beside.textContent = `compare ${chosen.size} runs`;
  }

  function rowOf(run) {
    const told = JSON.stringify(run), known = rows.get(run.run_id);
    return known?.told === told ? known.element : row(run, choose);
  }

  function paint() {
    if (!runs) return;
    const words = search.value.toLowerCase();
    const found = runs.filter((run) => (over.checked || run.phase !== "Ended") &&
      `${run.run_id} ${run.model} ${run.phase} ${run.failing.map((each) => each.condition).join(" ")}`.toLowerCase().includes(words));
    const wanted = all ? found : found.slice(0, FIRST);
    rest.hidden = wanted.length === found.length;
    rest.textContent = `show ${found.length - wanted.length} more`;
    const going = runs.filter((run) => run.phase !== "Ended");
    const ill = going.filter((run) => ILL.includes(run.phase));
    say(summary, runs.length
      ? `${going.length} ${going.length === 1 ? "run goes" : "runs go"} on, ${ill.length} in trouble; ${runs.length - going.length} ended`
      : "no runs yet");
    settle(body, wanted.map(rowOf));
    rows.clear();
    wanted.forEach((run, at) => rows.set(run.run_id, { told: JSON.stringify(run), element: body.children[at] }));
    list.hidden = !wanted.length;
    none.hidden = !list.hidden;
    none.textContent = runs.length ? "none of these" : "A run appears here with its first step: `with pilothouse.start_run(\"name\") as run:`";
  }

  return {
    title: "Fleet",
    wants: () => true,
    end: () => {},
    renew: async () => {
      const told = await get("/api/fleet?limit=2000");
      runs = told.runs;
      paint();
      return told.waiting.length;
    },
  };
}

const heading = ([name, kind]) => (name === "compare" ? h("td", { class: "pick" }) : h("th", { scope: "col", class: kind === 2 && "more" }, name));

function row(run, choose) {
  const more = (...children) => h("td", { class: "more" }, ...children);
  return h("tr", { "data-key": run.run_id },
    h("td", { class: "pick" }, h("input", { type: "checkbox", "aria-label": `compare ${plain(run.run_id)}`, onchange: (event) => choose(run.run_id, event.target.checked) })),
    h("th", { scope: "row" }, runLink(run.run_id), run.model ? h("small", {}, ` ${plain(run.model)}`) : null),
    h("td", {}, phase(run.phase), run.outcome ? ` ${plain(run.outcome)}` : ""),
    h("td", {}, margin(run.margin)),
    h("td", { class: "small" }, run.failing.length ? run.failing.map((each, at) => [at ? ", " : "", h("span", { class: "bad", title: plain(each.reason) }, plain(each.condition))]) : "–"),
    h("td", {}, run.waits ? h("a", { class: "asks", href: "#/waiting" }, `${run.waits} to answer`) : "–"),
    h("td", {}, run.cost === null ? "–" : number(run.cost, 3)),
    more(number(run.steps_per_second, 3)),
    more(number(run.last_step)),
    more(run.open_incidents ? h("b", { class: "bad" }, `${run.open_incidents} open`) : number(run.incidents)),
    more(number(run.interventions)),
    more(number(run.stability_score, 3)),
    h("td", {}, ago(run.last_at)));
}
