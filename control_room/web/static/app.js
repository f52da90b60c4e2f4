// The page: which view its address names, renewed whenever one of its runs stirs.

import { get, listen, post, Refused } from "./api.js";
import { h, plain } from "./dom.js";
import { fleet } from "./fleet.js";
import { policies } from "./policies.js";
import { compare, incident, review, similar, whole } from "./report.js";
import { run } from "./run.js";
import { signIn } from "./sign_in.js";
import { waiting } from "./waiting.js";

const content = document.getElementById("content");
const link = document.getElementById("link");
let view = null, source = null, due = null, shown = 0;

// Each view: `make(target, ...arguments)` gives { title, renew(), wants(runs), end() }. Names are encoded in an address.
const VIEWS = { run: [run, 1], report: [whole, 1], similar: [similar, 1], incident: [incident, 2], compare: [compare, 2], waiting: [waiting, 0], history: [review, 0], policies: [policies, 0] };

function viewOf(address) {
  const [, name, ...rest] = address.split("/");
  const [make, least] = VIEWS[name] ?? [fleet, 0];
  const given = rest.filter(Boolean).map(decodeURIComponent);
  return given.length < least ? [fleet] : [make, ...given];
}

async function show() {
  if (view) view.end();
  const [make, ...given] = viewOf(location.hash.slice(1));
  const mine = ++shown;
  content.replaceChildren();
  view = make(content, ...given);
  document.title = `${view.title} · Pilothouse`;
  for (const each of document.querySelectorAll("nav a")) {
    if (each.getAttribute("href") === (location.hash || "#/")) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  await renew(mine);
}

async function renew(mine = shown) {
  try {
    await view.renew();
    count(await get("/api/fleet?limit=1"));
  } catch (error) {
    if (mine !== shown) return;
    if (error instanceof Refused && error.status === 401) return begin();
    content.replaceChildren(h("p", { class: "bad", role: "alert" }, plain(error.message)));
  }
}

function count(told) {
  document.getElementById("waiting-count").textContent = told.waiting.length ? `(${told.waiting.length})` : "";
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
    document.getElementById("who").textContent = `${plain(person.name)} (${person.role})`;
    document.body.dataset.role = person.role;
  } catch (error) {
    link.textContent = "";
    return signIn(content, error, begin);
  }
  source = listen(stirred, (word) => { link.textContent = word; link.className = word === "live" ? "live" : "lost"; });
  await show();
}

window.addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => { if (!document.hidden && view) renew(); });
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "f") location.hash = "#/";
  if (event.key === "w") location.hash = "#/waiting";
  if (event.key === "h") location.hash = "#/history";
  if (event.key === "p") location.hash = "#/policies";
  if (event.key === "/") { document.querySelector("input[type=search]")?.focus(); event.preventDefault(); }
});
begin();
