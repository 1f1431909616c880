// The page: addresses to views, the search box, the state of the link, and keys.

import { ApiError, get, post } from "./api.js";
import { h, replace } from "./dom.js";
import { decision, decisionList } from "./decision.js";
import { bytes, count, time } from "./format.js";
import { HaltControl } from "./halt.js";
import { Live } from "./live.js";
import { overview } from "./overview.js";
import { failed } from "./parts.js";
import { score } from "./score.js";
import { symbol, symbols } from "./symbol.js";

const LOST_AFTER_MS = 3_000;
const main = document.getElementById("main");
const notice = document.getElementById("notice");
const live = new Live();
const halt = new HaltControl(live, document.getElementById("halt"), document.getElementById("dialog"));
let view = {};

function show() {
  view.destroy?.();
  const [, name = "", argument = ""] = location.pathname.split("/").map(decodeURIComponent);
  const title = { "": "Overview", symbol: argument || "Symbols", decision: "Decision", score: "Score" }[name] ?? "Overview";
  document.title = `${title} · Aquiline console`;
  for (const link of document.querySelectorAll("#nav a")) link.toggleAttribute("aria-current", (link.pathname.split("/")[1] ?? "") === name);
  if (name === "symbol") view = argument ? symbol(main, live, argument, (...which) => halt.ask(...which)) : symbols(main);
  else if (name === "decision") view = argument ? decision(main, live, argument) : decisionList(main, live);
  else if (name === "score") view = score(main, live);
  else view = overview(main, live);
  live.follow(view.follows ?? "");
}

function go(path) {
  history.pushState(null, "", path);
  show();
  window.scrollTo(0, 0);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || link.origin !== location.origin || link.pathname.startsWith("/static/") || link.hash || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(link.pathname);
});
window.addEventListener("popstate", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => live.state && show());

// A symbol is found with or without its venue.
async function knownSymbol(wanted) {
  const known = (await get("/api/symbols").catch(() => [])).map((one) => one.symbol);
  const named = known.filter((one) => one === wanted || one.startsWith(`${wanted}.`));
  return named.length === 1 ? named[0] : null;
}

document.getElementById("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  const box = document.getElementById("search-box");
  const wanted = box.value.trim();
  if (!wanted) return;
  box.blur();
  const symbol = await knownSymbol(wanted.toUpperCase());
  if (symbol) return go(`/symbol/${encodeURIComponent(symbol)}`);
  const found = wanted.length < 4 ? [] : await get(`/api/search?${new URLSearchParams({ q: wanted })}`).catch(() => []);
  go(`/decision/${encodeURIComponent(found.length === 1 ? found[0].trigger_id : wanted)}`);
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  document.getElementById("search-box").select();
});

function drawLink() {
  const state = document.getElementById("link-state");
  const feed = live.state?.now.feed;
  const silent = Date.now() - live.lastHeardMs > LOST_AFTER_MS;
  const lost = live.status !== "live" || silent;
  const kind = lost ? "lost" : !feed?.connected ? "broker" : feed.behind_records > 1_000 ? "behind" : "live";
  if (state.dataset.state !== kind) {
    state.dataset.state = kind;
    replace(state, { lost: "Reconnecting", broker: "No broker", behind: "Catching up", live: "Live" }[kind]);
  }
  const text = noticeText(kind, feed);
  if (notice.textContent !== (text ?? "")) replace(notice, text);
  notice.hidden = !text;
}

function noticeText(kind, feed) {
  const since = live.lastHeardMs ? ` What you see is from ${time(live.lastHeardMs)} UTC.` : "";
  if (kind === "lost") return live.state ? `The console does not answer; trying again.${since}` : null;
  if (kind === "broker") return `The broker cannot be read, so nothing here is new: ${feed?.problem ?? ""}`;
  if (feed?.missing_topics.length) return `Topics do not exist yet: ${feed.missing_topics.join(", ")}. Create them with aquiline topics create.`;
  return null;
}

function drawNow() {
  halt.draw();
  drawLink();
  const { feed } = live.now;
  replace(document.getElementById("footer-facts"), `Aquiline ${live.state.version} · ${count(feed.held_decisions)} decisions, ${bytes(feed.held_bytes)} in memory · times are UTC`);
}

live.addEventListener("now", () => {
  drawNow();
  view.now?.();
});
live.addEventListener("events", (event) => view.events?.(event.detail));
live.addEventListener("status", drawLink);
live.addEventListener("reload", () => {
  const mode = document.getElementById("run-mode");
  replace(mode, live.state.run_mode);
  mode.dataset.mode = live.state.run_mode;
  show();
  drawNow();
});
setInterval(drawLink, 1_000);

function login(error) {
  const token = h("input", { id: "login-token", type: "password", required: true, autocomplete: "current-password" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const form = h("form", { class: "card login" }, h("h1", {}, "Log in"), h("p", {}, error.message), h("label", { for: "login-token" }, "Console token", token), problem, h("button", { type: "submit", class: "primary" }, "Log in"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await post("/api/session", { token: token.value });
      await start();
    } catch (refused) {
      replace(problem, refused.message).hidden = false;
    }
  });
  replace(main, form);
  token.focus();
}

// An address with #token=… opens a session at once: the demo prints one. The token leaves the address bar and the history.
async function tokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  await post("/api/session", { token }).catch(() => null);
}

async function start() {
  try {
    await tokenFromAddress();
    await live.load();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) login(error);
    else replace(main, failed(error, start));
  }
}

start();
