import { post } from "./api.js";
import { h, plain } from "./dom.js";

export function signIn(target, done) {
  const field = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
  const said = h("p", { class: "bad", role: "alert" });
  const form = h("form", {
    class: "card", onsubmit: async (event) => {
      event.preventDefault();
      try { await post("/api/session", { token: field.value }); await done(); } catch (refusal) { said.textContent = plain(refusal.message); }
    },
  },
    h("h1", {}, "Who is there?"),
    h("p", {}, "The control room needs a token: the address that `pilothouse serve` printed holds one."),
    h("label", { for: "token" }, "Token "), field, h("button", {}, "Sign in"), said);
  target.replaceChildren(form);
  field.focus();
}
