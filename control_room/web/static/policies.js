// Every policy that ever governed a run: its words, its text, what differs, and what it would have done to an old run.

import { get, post } from "./api.js";
import { clock, facts, h, number, plain, runLink, table } from "./dom.js";

export function policies(target) {
  const list = h("div", {}, h("p", { class: "soft" }, "loading …"));
  target.append(h("h1", {}, "Policies"), list);
  let shown = "";
  return {
    title: "Policies",
    wants: () => true,
    end: () => {},
    renew: async () => {
      const [told, fleet] = await Promise.all([get("/api/policies"), get("/api/fleet?limit=200")]);
      const state = JSON.stringify(told.map((each) => [each.policy_hash, each.governs]));
      if (state === shown) return fleet.waiting.length; // what a person has opened stays open
      shown = state;
      list.replaceChildren(...(told.length ? told.map((each) => card(each, told, fleet.runs)) : [h("p", { class: "soft" }, "no run was governed yet")]));
      return fleet.waiting.length;
    },
  };
}

function card(told, all, runs) {
  const open = told.governs.slice(0, 8).map((run) => [runLink(run), " "]);
  return h("section", { class: "card", "aria-label": `policy ${plain(told.name)} ${plain(told.policy_hash).slice(0, 12)}` },
    h("h2", {}, plain(told.name), h("small", {}, ` ${plain(told.policy_hash).slice(0, 12)}`)),
    facts([["mode", plain(told.mode)], ["first in force", `${clock(told.first_at)} UTC`], ["by", plain(told.who)],
      ["governs", told.governs.length ? [...open, told.governs.length > 8 ? `and ${told.governs.length - 8} more` : ""] : "nothing now"],
      ...Object.entries(told.words).filter(([key]) => key !== "mode").map(([key, text]) => [key, plain(text)]),
    ]),
    told.rules.map((rule) => h("details", {}, h("summary", {}, h("b", {}, plain(rule.name)), ` ${plain(rule.when || "")}`),
      facts(Object.entries(rule).filter(([key]) => !["name", "when"].includes(key)).map(([key, text]) => [key, plain(text)])))),
    h("details", {}, h("summary", {}, "text"), h("p", { class: "small soft" }, `hash ${plain(told.policy_hash)}`), h("pre", { tabindex: 0, "aria-label": `text of ${plain(told.name)}` }, told.text)),
    differences(told, all), backtest(told, runs), activation(told, runs));
}

function differences(told, all) {
  const others = all.filter((each) => each.policy_hash !== told.policy_hash);
  if (!others.length) return null;
  const found = h("div", { role: "status" });
  const choice = h("select", { "aria-label": "Compare with", onchange: async () => {
    if (!choice.value) { found.replaceChildren(); return; }
    try {
      const differs = await get(`/api/policies/differences?before=${encodeURIComponent(choice.value)}&after=${encodeURIComponent(told.policy_hash)}`);
      found.replaceChildren(
        h("ul", {}, differs.differences.length ? differs.differences.map((each) => h("li", {}, plain(each.words))) : h("li", {}, "they do the same")),
        h("details", {}, h("summary", {}, "line by line"), h("pre", { tabindex: 0, "aria-label": "differences line by line" }, differs.text.map((line) => h("span", { class: line[0] === "+" ? "good" : line[0] === "-" ? "bad" : false }, `${plain(line)}\n`)))));
    } catch (error) { found.replaceChildren(h("p", { class: "bad" }, plain(error.message))); }
  } }, h("option", { value: "" }, "what differs from …"), others.map((each) => h("option", { value: each.policy_hash }, `${plain(each.name)} ${plain(each.policy_hash).slice(0, 12)}`)));
  return h("div", {}, h("p", { class: "tools" }, choice), found);
}

// Who is no administrator sees none of it, and would be refused.
function activation(told, runs) {
  const said = h("p", { role: "status" });
  const choice = h("select", { "aria-label": "Put in force for" }, h("option", { value: "" }, "let it govern …"),
    runs.filter((each) => each.phase !== "Ended" && !told.governs.includes(each.run_id)).map((each) => h("option", { value: each.run_id }, plain(each.run_id))));
  const go = h("button", { type: "button", onclick: async () => {
    if (!choice.value) { choice.focus(); return; }
    if (!confirm(`Let ${plain(told.name)} (mode ${plain(told.mode)}) govern ${plain(choice.value)} from now on?`)) return;
    go.disabled = true;
    try {
      const done = await post("/api/policies/activate", { run: choice.value, text: told.text });
      said.textContent = plain(done.left_out || `${done.now.name} governs ${done.run_id}; it was ${done.before.name}`);
    } catch (error) { said.textContent = plain(error.message); }
    go.disabled = false;
  } }, "activate");
  return h("div", { class: "rule" }, h("p", { class: "tools" }, choice, go), said);
}

function backtest(told, runs) {
  const said = h("div", { role: "status" });
  const choice = h("select", { "aria-label": "Backtest on" }, h("option", { value: "" }, "what would it have done to …"), runs.map((each) => h("option", { value: each.run_id }, plain(each.run_id))));
  const go = h("button", { type: "button", onclick: async () => {
    if (!choice.value) { choice.focus(); return; }
    go.disabled = true;
    said.replaceChildren("folding the run again …");
    try { said.replaceChildren(...result(await post("/api/policies/backtest", { run: choice.value, text: told.text }))); } catch (error) { said.replaceChildren(h("p", { class: "bad" }, plain(error.message))); }
    go.disabled = false;
  } }, "backtest");
  return h("div", {}, h("p", { class: "tools" }, choice, go), said);
}

function result(found) {
  const sum = (counts) => Object.values(counts).reduce((all, each) => all + each, 0);
  const side = (name, told) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, number(sum(told.sound.alarms))), h("td", {}, number(sum(told.sound.proposed))), h("td", {}, number(sum(told.sound.issued))));
  return [
    h("p", {}, `${plain(found.run_id)}: ${number(found.steps)} steps, ${found.healthy ? "healthy" : "with incidents"}, instead of ${plain(found.policies.join(", ") || "no policy")}`),
    table("Backtest", ["policy", "alarms", "proposed", "issued"], [side("in force then", found.in_force), side("this policy", found.candidate)]),
    found.incidents.length ? table("Incidents of the backtest", ["incident", "from step", "in force answered", "this one would", "catch"], found.incidents.map((each) => h("tr", {},
      h("th", { scope: "row" }, `${plain(each.condition)}: ${plain(each.reason)}`), h("td", {}, number(each.onset_step)), h("td", {}, number(each.in_force)), h("td", {}, number(each.candidate)), h("td", {}, plain(each.catch).replaceAll("_", " "))))) : null,
    ...found.cannot_know.map((each) => h("p", { class: "soft" }, plain(each))),
  ].filter(Boolean);
}
