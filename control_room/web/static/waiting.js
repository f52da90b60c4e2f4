// What waits for a person: what is proposed, why, and what happens if nobody answers.

import { get, ofRun, post } from "./api.js";
import { action, clock, facts, h, number, plain, runLink, say, settle } from "./dom.js";

export function waiting(target) {
  const list = h("div", {}), said = h("p", { class: "soft", role: "status" }, "loading …");
  target.append(h("h1", {}, "Waiting for an answer"), said, list);
  return {
    title: "Waiting",
    wants: () => true,
    end: () => {},
    renew: async () => {
      const told = await get("/api/waiting");
      // A card in which somebody writes is left as it is.
      const known = new Map([...list.children].map((card) => [card.dataset.key, card]));
      settle(list, told.map((each) => known.get(each.intervention_id) ?? proposal(each)));
      say(said, told.length ? "" : "Nothing waits for you.");
      return told.length;
    },
  };
}

export function proposal(told) {
  const why = h("input", { type: "text", "aria-label": "Why", placeholder: "why (kept in the record)", maxlength: 2000 });
  const said = h("p", { role: "status" });
  const buttons = ["approve", "decline"].map((verb) => h("button", {
    class: verb, type: "button", onclick: async () => {
      if (verb === "decline" && !why.value.trim()) { said.textContent = "say why not"; why.focus(); return; }
      buttons.forEach((button) => { button.disabled = true; });
      try {
        const outcome = await post(ofRun(told.run_id, "/orders"), { verb, why: why.value, intervention_id: told.intervention_id });
        said.textContent = plain(outcome.reason ? `${outcome.outcome}: ${outcome.reason}` : outcome.outcome);
      } catch (error) {
        said.textContent = plain(error.message);
        buttons.forEach((button) => { button.disabled = false; });
      }
    },
  }, verb));
  const evidence = Object.entries(told.evidence || {}).slice(0, 8).map(([name, value]) => `${name} ${number(value)}`).join(", ");
  return h("section", { class: "card asks", "data-key": told.intervention_id, "aria-label": `proposal for run ${plain(told.run_id)}` },
    h("h2", {}, runLink(told.run_id), `: ${action(told.action)}`),
    facts([
      ["it would", plain(told.does)],
      ["because", `${plain(told.reason)} (rule ${plain(told.rule)}, ${plain(told.severity)}, step ${number(told.step)})`],
      ["if nobody answers", `${plain(told.default || "–")} at ${clock(told.until)} UTC`],
      ["bounds", plain(told.bounds || "none but the action's own")],
      ["evidence", plain(evidence) || "–"],
      ...Object.entries(told.asked).map(([name, words]) => [name, plain(words)]),
    ]),
    h("p", { class: "tools act" }, why, buttons), said);
}
