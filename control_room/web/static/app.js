// The page: which view its address names, renewed whenever one of its runs stirs.

import { forget, get, listen, post, Refused } from "./api.js";
import { age, h, plain, say } from "./dom.js";
import { fleet } from "./fleet.js";
import { policies } from "./policies.js";
import { compare, incident, review, similar, whole } from "./report.js";
import { run } from "./run.js";
import { signIn } from "./sign_in.js";
import { waiting } from "./waiting.js";

const byId = (id) => document.getElementById(id);
const content = byId("content"), link = byId("link"), trouble = byId("trouble"), keys = byId("keys");
let view = null, source = null, due = null, again = null, shown = 0;

// Each view: `make(target, ...arguments)` gives { title, renew(), wants(runs), end() }; what `renew` gives back, where
// it gives anything, is how many proposals wait. Names are encoded in an address.
const VIEWS = { run: [run, 1], report: [whole, 1], similar: [similar, 1], incident: [incident, 2], compare: [compare, 2], waiting: [waiting, 0], history: [review, 0], policies: [policies, 0] };

function viewOf(address) {
  const [, name, ...rest] = address.split("/");
  const [make, least] = VIEWS[name] ?? [fleet, 0];
  let given = [];
  try { given = rest.filter(Boolean).map(decodeURIComponent); } catch { return [fleet]; } // an address cut in half
  return given.length < least ? [fleet] : [make, ...given];
}

async function show() {
  if (view) view.end();
  const [make, ...given] = viewOf(location.hash.slice(1));
  const mine = ++shown;
  content.replaceChildren();
  view = make(content, ...given);
  document.title = `${view.title} · Pilothouse`;
  const open = `#/${location.hash.split("/")[1] ?? ""}`;
  for (const each of document.querySelectorAll("nav a")) {
    if (each.getAttribute("href") === open) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  await renew(mine);
}

// What went wrong is said above what was known before, which stays; what may be over soon is asked again.
const AGAIN = 5000;

async function renew(mine = shown) {
  clearTimeout(again);
  try {
    const waits = await view.renew();
    count(waits ?? (await get("/api/waiting")).length);
    if (mine !== shown) return;
    say(trouble, "");
    content.dataset.renewals = 1 + Number(content.dataset.renewals ?? 0); // for whoever waits for it: a test, a browser's console
  } catch (error) {
    if (mine !== shown) return;
    if (error instanceof Refused && error.status === 401) { begin(); return; }
    say(trouble, plain(error.message));
    if (!(error instanceof Refused) || error.status >= 500) again = setTimeout(renew, AGAIN);
  }
}

function count(waits) {
  say(byId("waiting-count"), waits ? `(${waits})` : "");
}

// As things stir, however much happens: what is asked costs the archive something.
const RENEW_EVERY = 2000;
let renewed = 0;

function stirred(runs) {
  if (!view || !view.wants(runs) || due) return;
  due = setTimeout(() => { due = null; renewed = Date.now(); if (!document.hidden) renew(); }, Math.max(0, renewed + RENEW_EVERY - Date.now()));
}

async function begin() {
  source?.close();
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    history.replaceState(null, "", "/");
    await post("/api/session", { token: given }).catch(() => {});
  }
  try {
    const person = await get("/api/session");
    say(byId("who"), `${plain(person.name)} (${person.role})`);
    document.body.dataset.role = person.role;
  } catch (error) {
    document.body.dataset.role = "";
    say(link, "");
    if (error instanceof Refused && error.status === 401) return signIn(content, begin);
    say(trouble, plain(error.message));
    again = setTimeout(begin, AGAIN);
    return;
  }
  say(trouble, "");
  source = listen({ stirred, back: () => { if (!document.hidden) renew(); }, state: (word) => { say(link, word); link.className = word === "live" ? "live" : "lost"; } });
  await show();
}

const KEYS = { f: "#/", w: "#/waiting", h: "#/history", p: "#/policies" };

window.addEventListener("hashchange", async () => {
  if (!view) return;
  window.scrollTo(0, 0);
  content.focus({ preventScroll: true }); // what was focused is gone with its view
  await show();
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view?.repaint?.());
document.addEventListener("visibilitychange", () => { if (!document.hidden && view) renew(); });
document.addEventListener("keydown", (event) => {
  if (!keys.checked || event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (KEYS[event.key]) location.hash = KEYS[event.key];
  if (event.key === "/") { document.querySelector("input[type=search]")?.focus(); event.preventDefault(); }
});
keys.checked = localStorage.getItem("keys") !== "off";
keys.addEventListener("change", () => localStorage.setItem("keys", keys.checked ? "on" : "off"));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); content.focus(); }); // an address names a view
byId("leave").addEventListener("click", async () => { source?.close(); view?.end(); view = null; await forget("/api/session"); begin(); });
setInterval(age, 10_000);
begin();
