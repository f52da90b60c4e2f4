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

// `label` says what a screen reader calls it; whoever has no mouse scrolls a wide one by its keys.
export function table(label, headings, rows) {
  return h("div", { class: "wide", tabindex: 0, role: "group", "aria-label": label },
    h("table", { "aria-label": label },
      h("thead", {}, h("tr", {}, headings.map((heading) => (heading instanceof Node ? heading : h("th", { scope: "col" }, heading))))),
      h("tbody", {}, rows)));
}

// Makes what stands in `target` like `wanted`, and leaves alone what is alike: the focus, what somebody has opened or
// written, and what a screen reader has read already. Elements with the same `data-key` are the same thing.
export function settle(target, ...wanted) {
  const focused = document.activeElement;
  arrange(target, wanted.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false).map((each) => (each instanceof Node ? each : document.createTextNode(each))));
  if (focused !== document.activeElement && target.contains(focused)) focused.focus({ preventScroll: true });
}

function arrange(target, wanted) {
  const keyed = new Map();
  for (const each of target.children) if (each.dataset.key !== undefined) keyed.set(each.dataset.key, each);
  let at = target.firstChild;
  for (const fresh of wanted) {
    const key = fresh.dataset?.key;
    const old = fresh.parentNode === target ? fresh : key !== undefined ? keyed.get(key) : alike(at, fresh) ? at : null;
    if (!old) { target.insertBefore(fresh, at); continue; }
    if (old === at) at = at.nextSibling; else target.insertBefore(old, at);
    if (old !== fresh) resemble(old, fresh);
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
}

const alike = (old, fresh) => old && old.nodeName === fresh.nodeName && old.dataset?.key === undefined;

function resemble(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) { old.data = fresh.data; return; }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  arrange(old, [...fresh.childNodes]);
}

// What does not print is spelled out: a newline, an escape, marks that turn the direction of writing.
export const plain = (text) => String(text).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu,
  (each) => each === "\n" ? "⏎" : `\\u${each.codePointAt(0).toString(16).padStart(4, "0")}`);

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value; // NaN and the infinities
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

function since(micros) {
  const seconds = Math.max(0, Math.round((Date.now() - micros / 1e3) / 1e3));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} d ago`;
}

// How long ago something was; `age` lets all of them grow older, also where nothing more is heard.
export const ago = (micros) => (micros ? h("time", { datetime: new Date(micros / 1e3).toISOString(), "data-at": micros }, since(micros)) : "–");
export function age() {
  for (const each of document.querySelectorAll("time[data-at]")) {
    const text = since(Number(each.dataset.at));
    if (each.textContent !== text) each.textContent = text;
  }
}

export const clock = (micros) => (micros ? new Date(micros / 1e3).toISOString().slice(0, 19).replace("T", " ") : "–");

// What a live region says only when it says something else: a screen reader reads it aloud each time.
export function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

export function facts(pairs) {
  return h("dl", {}, pairs.filter((each) => each).map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value))));
}

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

export const runLink = (name, view = "run") => h("a", { href: `#/${view}/${encodeURIComponent(name)}` }, plain(name));
