// The API, and what is told live.

export class Refused extends Error {
  constructor(status, why) { super(why); this.status = status; }
}

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method, credentials: "same-origin",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  }).catch(() => { throw new Error("the control room does not answer"); });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, typeof told.detail === "string" ? told.detail : `refused (${answer.status})`);
  return told;
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);
export const forget = (path) => ask("DELETE", path);
export const ofRun = (run, part = "", asked = "") => `/api/run${part}?run=${encodeURIComponent(run)}${asked && `&${asked}`}`;

const SILENT = 45_000; // the server says something every 15 s
const AGAIN = 3_000;

// Calls `stirred(runs)` as things are archived, `back()` when something may have been missed, `state(word)` as the
// connection stands. The browser itself tries again only where nothing answered: a refusal, and a connection that
// sleeps (a laptop that was shut), are seen to here. Ends with `close()`.
export function listen({ stirred, back, state }) {
  let source = null, watch = null, lost = false;
  const again = (after) => { clearTimeout(watch); watch = setTimeout(begin, after); };
  const heard = () => { again(SILENT); state("live"); };
  function begin() {
    source?.close();
    source = new EventSource("/api/live");
    again(SILENT);
    source.addEventListener("open", () => { heard(); if (lost) back(); lost = false; });
    source.addEventListener("error", () => {
      lost = true;
      state("lost: trying again …");
      if (source.readyState === EventSource.CLOSED) { again(AGAIN); back(); }
    });
    source.addEventListener("alive", heard);
    source.addEventListener("lost", (event) => { again(SILENT); state(`the archive does not answer: ${JSON.parse(event.data).why}`); });
    source.addEventListener("stirred", (event) => { heard(); stirred(JSON.parse(event.data).runs); });
  }
  begin();
  return { close: () => { clearTimeout(watch); source.close(); } };
}
