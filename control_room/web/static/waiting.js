// What waits for a person: what is proposed, why, and what happens if nobody answers.

import { get, ofRun, post } from "./api.js";
import { action, clock, h, number, plain } from "./dom.js";

export function waiting(target) {
  const list = h("div", {}, h("p", { class: "soft" }, "loading …"));
  target.append(h("h1", {}, "Waiting for an answer"), list);
  const drawn = new Map();
  return {
    title: "Waiting",
    wants: () => true,
    end: () => {},
    renew: async () => {
      const { waiting: told } = await get("/api/fleet?limit=1");
      // A card in which somebody writes is left as it is.
      for (const [id, card] of drawn) if (!told.some((each) => each.intervention_id === id)) { card.remove(); drawn.delete(id); }
      for (const each of told) if (!drawn.has(each.intervention_id)) {
        const card = proposal(each);
        drawn.set(each.intervention_id, card);
        list.append(card);
      }
      list.querySelector("p.soft")?.remove();
      if (!told.length) list.append(h("p", { class: "soft" }, "Nothing waits for you."));
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
  return h("section", { class: "card asks", "aria-label": `proposal for run ${plain(told.run_id)}` },
    h("h2", {}, h("a", { href: `#/run/${encodeURIComponent(told.run_id)}` }, plain(told.run_id)), `: ${action(told.action)}`),
    h("dl", {},
      h("div", {}, h("dt", {}, "because"), h("dd", {}, `${plain(told.reason)} (rule ${plain(told.rule)}, ${plain(told.severity)}, step ${number(told.step)})`)),
      h("div", {}, h("dt", {}, "if nobody answers"), h("dd", {}, `${plain(told.default || "–")} at ${clock(told.until)} UTC`)),
      h("div", {}, h("dt", {}, "evidence"), h("dd", {}, plain(evidence) || "–"))),
    h("p", { class: "tools act" }, why, buttons), said);
}
