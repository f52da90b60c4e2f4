// Elements from values. Text is always text: what a stranger named a run is shown, and does nothing.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function table(headings, rows) {
  return h("div", { class: "wide" },
    h("table", {},
      h("thead", {}, h("tr", {}, headings.map((heading) => h("th", { scope: "col" }, heading)))),
      h("tbody", {}, rows)));
}

// What does not print is spelled out: a newline, an escape, marks that turn the direction of writing.
export const plain = (text) => String(text).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu,
  (each) => each === "\n" ? "⏎" : `\\u${each.codePointAt(0).toString(16).padStart(4, "0")}`);

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value; // NaN and the infinities
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export function ago(micros, now = Date.now()) {
  if (!micros) return "–";
  const seconds = Math.max(0, Math.round(now / 1e3 - micros / 1e6));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} d ago`;
}

export const clock = (micros) => (micros ? new Date(micros / 1e3).toISOString().slice(0, 19).replace("T", " ") : "–");

export function phase(name) {
  return h("span", { class: `phase p-${String(name).toLowerCase().replace(/[^a-z]/g, "")}` }, plain(name || "Unknown"));
}

export function margin(value) {
  if (value === null || value === undefined) return h("span", { class: "soft" }, "–");
  return h("span", { class: "margin" },
    h("meter", { min: 0, max: 1, low: 0.25, high: 0.5, optimum: 1, value, "aria-label": `stability margin ${number(value, 2)}` }),
    ` ${value.toFixed(2)}`);
}

export function action(told) {
  const rest = Object.entries(told).filter(([name, value]) => name !== "action" && value !== null && value !== "");
  return plain([told.action, ...rest.map(([name, value]) =>
    `${name}=${typeof value === "object" ? (value.step !== undefined ? `step ${value.step}` : JSON.stringify(value)) : value}`)].join(" "));
}
