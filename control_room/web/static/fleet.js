// Every run, what needs a person first.

import { get } from "./api.js";
import { ago, h, margin, number, phase, plain, table } from "./dom.js";

const HEADINGS = ["", "run", "phase", "margin", "score", "step", "incidents", "waits for you", "interventions", "heard"];

export function fleet(target) {
  const search = h("input", { type: "search", placeholder: "filter (press /)", "aria-label": "Filter the runs", oninput: () => paint() });
  const over = h("input", { type: "checkbox", id: "ended", onchange: () => paint() });
  const summary = h("p", { class: "lead", role: "status" });
  const list = h("div", {}, h("p", { class: "soft" }, "loading …"));
  target.append(h("h1", {}, "Fleet"), summary, h("p", { class: "tools" }, search, " ", over, h("label", { for: "ended" }, " runs that have ended")), list);
  const beside = h("button", { type: "button", hidden: true, onclick: () => { location.hash = `#/compare/${[...chosen].map(encodeURIComponent).join("/")}`; } }, "compare");
  const chosen = new Set();
  list.before(beside);
  let runs = [];

  function choose(run, on) {
    if (on) chosen.add(run); else chosen.delete(run);
    beside.hidden = chosen.size < 2;
    beside.textContent = `compare ${chosen.size} runs`;
  }

  function paint() {
    const words = search.value.toLowerCase();
    const wanted = runs.filter((run) => (over.checked || run.phase !== "Ended") &&
      `${run.run_id} ${run.model} ${run.phase}`.toLowerCase().includes(words));
    const going = runs.filter((run) => run.phase !== "Ended");
    const ill = going.filter((run) => ["Diverged", "Unstable", "Stalled"].includes(run.phase));
    summary.textContent = runs.length
      ? `${going.length} ${going.length === 1 ? "run goes" : "runs go"} on, ${ill.length} in trouble; ${runs.length - going.length} ended`
      : "no runs yet";
    list.replaceChildren(wanted.length ? table(HEADINGS, wanted.map((run) => row(run, chosen.has(run.run_id), choose))) : h("p", { class: "soft" }, runs.length ? "none of these" : "A run appears here with its first step: `with pilothouse.start_run(\"name\") as run:`"));
  }

  return {
    title: "Fleet",
    wants: () => true,
    end: () => {},
    renew: async () => { runs = (await get("/api/fleet?limit=2000")).runs; paint(); },
  };
}

function row(run, on, choose) {
  return h("tr", {},
    h("td", { class: "pick" }, h("input", { type: "checkbox", checked: on, "aria-label": `compare ${plain(run.run_id)}`, onchange: (event) => choose(run.run_id, event.target.checked) })),
    h("th", { scope: "row" }, h("a", { href: `#/run/${encodeURIComponent(run.run_id)}` }, plain(run.run_id)), run.model ? h("small", {}, ` ${plain(run.model)}`) : null),
    h("td", {}, phase(run.phase), run.outcome ? ` ${plain(run.outcome)}` : ""),
    h("td", {}, margin(run.margin)),
    h("td", {}, number(run.stability_score, 3)),
    h("td", {}, number(run.last_step)),
    h("td", {}, run.open_incidents ? h("b", { class: "bad" }, `${run.open_incidents} open`) : number(run.incidents)),
    h("td", {}, run.waits ? h("a", { class: "asks", href: "#/waiting" }, `${run.waits} to answer`) : "–"),
    h("td", {}, number(run.interventions)),
    h("td", {}, ago(run.last_at)));
}
