// Halt and resume, from every view: a reason, a confirmation, and the console's token once a session.

import { get, post } from "./api.js";
import { h, replace } from "./dom.js";

export class HaltControl {
  constructor(live, button, dialog) {
    this.live = live;
    this.button = button;
    this.dialog = dialog;
    button.addEventListener("click", () => this.ask(null, this.live.now.halt.everything !== null));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  draw() {
    const { everything, symbols } = this.live.now.halt;
    const named = Object.keys(symbols).length;
    this.button.dataset.state = everything ? "halted" : named ? "partly" : "active";
    this.button.title = everything ?? (named ? Object.keys(symbols).join(", ") : "Signals are published");
    replace(this.button, h("span", { class: "light", "aria-hidden": "true" }), everything ? "HALTED" : named ? `${named} halted` : "ACTIVE");
  }

  ask(symbol, halted) {
    const { halt } = this.live.now;
    const what = symbol ?? "everything";
    const verb = halted ? "Resume" : "Halt";
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const reason = h("input", { id: "halt-reason", name: "reason", required: true, maxlength: "500", autocomplete: "off", placeholder: halted ? "exchange is back" : "exchange incident" });
    const token = halt.may_change ? null : h("input", { id: "halt-token", name: "token", type: "password", required: true, autocomplete: "current-password" });
    const confirmed = h("input", { id: "halt-confirmed", name: "confirmed", type: "checkbox", required: true });
    const send = h("button", { type: "submit", class: halted ? "primary" : "danger" }, `${verb} ${what}`);
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, `${verb} ${what}`),
      h("p", {}, halted ? this.resumeText(symbol) : "Within a second every worker stops publishing its signals and cancels those still open. The halt survives restarts."),
      halt.everything && h("p", { class: "faint" }, `Halted: ${halt.everything}`),
      !halt.token_set && h("p", { class: "problem" }, "This console has no token, so it cannot halt or resume. Set console.token, or use ", h("code", {}, `aquiline ${verb.toLowerCase()}`), "."),
      h("label", { for: "halt-reason" }, "Reason", reason),
      token && h("label", { for: "halt-token" }, "Console token", token),
      h("label", { for: "halt-confirmed", class: "check-line" }, confirmed, `Yes, ${verb.toLowerCase()} ${what} in run mode ${this.live.state.run_mode}`),
      problem,
      h("div", { class: "buttons" }, h("button", { type: "button", class: "quiet", onclick: () => this.dialog.close() }, "Cancel"), send),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      send.disabled = true;
      problem.hidden = true;
      try {
        if (token) await post("/api/session", { token: token.value });
        this.live.now.halt.may_change = true;
        await post("/api/control", { state: halted ? "ACTIVE" : "HALTED", symbol, reason: reason.value, confirmed: true });
        this.dialog.close();
        await this.refresh();
      } catch (error) {
        replace(problem, error.message).hidden = false;
      }
      send.disabled = false;
    });
    send.disabled = !halt.token_set;
    replace(this.dialog, form);
    this.dialog.showModal();
    reason.focus();
  }

  async refresh() {
    this.live.state.now.halt = await get("/api/halt");
    this.draw();
  }

  resumeText(symbol) {
    if (!symbol) return "Within a second every worker acts on new triggers again. Symbols that were halted by name stay halted; cancelled signals stay cancelled.";
    return "This symbol's triggers are acted on again. Price jumps that its bars show are accepted. While everything is halted, this symbol is too.";
  }
}
