// The API, and what is told live.

export class Refused extends Error {
  constructor(status, why) { super(why); this.status = status; }
}

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method, credentials: "same-origin",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, typeof told.detail === "string" ? told.detail : `refused (${answer.status})`);
  return told;
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);
export const ofRun = (run, part = "", asked = "") => `/api/run${part}?run=${encodeURIComponent(run)}${asked && `&${asked}`}`;

// Calls `stirred(runs)` as things are archived, `state(word)` as the connection stands. Ends with `close()`.
export function listen(stirred, state) {
  const source = new EventSource("/api/live");
  source.addEventListener("open", () => state("live"));
  source.addEventListener("error", () => state("lost: trying again …"));
  source.addEventListener("lost", (event) => state(`the archive does not answer: ${JSON.parse(event.data).why}`));
  source.addEventListener("stirred", (event) => { state("live"); stirred(JSON.parse(event.data).runs); });
  return source;
}
