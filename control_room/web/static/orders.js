// What a person may order of a run that goes on; approving and declining stand with what is proposed.

import { ofRun, post } from "./api.js";
import { h, plain } from "./dom.js";

const QUIET_SECONDS = 600;
const VERBS = [
  ["pause", "pause", {}], ["resume", "resume", {}], ["stop", "stop for good", {}],
  ["silence", "keep the rules quiet for 10 minutes", { seconds: QUIET_SECONDS }],
];

export function orders(name) {
  const said = h("p", { role: "status" });
  const why = h("input", { type: "text", placeholder: "why (goes into the log)", "aria-label": "Why", maxlength: 2000 });
  const buttons = VERBS.map(([verb, words, more]) => h("button", {
    type: "button", class: verb === "stop" ? "decline" : "", onclick: async () => {
      if (verb !== "resume" && !why.value.trim()) { said.textContent = "say why"; why.focus(); return; }
      if (verb === "stop" && !confirm(`Stop ${plain(name)} for good?`)) return;
      buttons.forEach((button) => { button.disabled = true; });
      try {
        const outcome = await post(ofRun(name, "/orders"), { verb, why: why.value, ...more });
        said.textContent = plain(`${words}: ${outcome.outcome}${outcome.reason ? `, ${outcome.reason}` : ""}`);
        why.value = "";
      } catch (error) { said.textContent = plain(error.message); }
      buttons.forEach((button) => { button.disabled = false; });
    },
  }, words));
  return h("details", { class: "act" }, h("summary", {}, "Order"), h("p", { class: "tools" }, why, buttons), said);
}
