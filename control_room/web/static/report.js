// Reports as the command line writes them: HTML of the server without a script, kept apart from the page's own style.

import { get } from "./api.js";
import { h, plain } from "./dom.js";

// A view that shows one report; `make(target)` may put something above it and gives back where the report is asked.
export function report(target, title, address, above = null) {
  const said = h("p", { class: "soft", role: "status" }, "reading …");
  const place = h("div", {});
  const inside = place.attachShadow({ mode: "open" });
  target.append(...(above ? [above] : []), said, place);
  return {
    title: plain(title),
    wants: () => false,
    end: () => {},
    renew: async () => {
      const told = await get(address());
      said.textContent = "";
      document.title = `${plain(told.title)} · Pilothouse`;
      // Written by our own server, which escapes every word that is told; scripts are refused by the content policy.
      inside.innerHTML = told.html;
    },
  };
}

export const incident = (target, name, id) => report(target, `Incident of ${name}`,
  () => `/api/run/incident?form=page&run=${encodeURIComponent(name)}&incident=${encodeURIComponent(id)}`,
  h("p", {}, h("a", { href: `#/run/${encodeURIComponent(name)}` }, plain(name))));

export const whole = (target, name) => report(target, name, () => `/api/run/report?form=page&run=${encodeURIComponent(name)}`,
  h("p", {}, h("a", { href: `#/run/${encodeURIComponent(name)}` }, "live view")));

export const similar = (target, name) => report(target, `Like ${name}`, () => `/api/run/similar?form=page&run=${encodeURIComponent(name)}`,
  h("p", {}, h("a", { href: `#/run/${encodeURIComponent(name)}` }, plain(name))));

export function compare(target, ...names) {
  const by = h("select", { "aria-label": "Along what", onchange: () => view.renew() },
    ["step", "tokens", "time"].map((each) => h("option", { value: each }, `by ${each}`)));
  const view = report(target, "Compare", () => `/api/compare?form=page&by=${by.value}&${names.map((name) => `run=${encodeURIComponent(name)}`).join("&")}`,
    h("p", { class: "tools" }, by));
  return view;
}

export function review(target) {
  const days = h("select", { "aria-label": "How far back", onchange: () => view.renew() },
    [[1, "the last day"], [7, "the last 7 days"], [28, "the last 4 weeks"], [91, "the last quarter"]].map(([value, text]) =>
      h("option", { value, selected: value === 7 }, text)));
  const view = report(target, "History", () => `/api/history?form=page&days=${days.value}`, h("p", { class: "tools" }, days));
  return view;
}
