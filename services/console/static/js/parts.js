// What several views share: pills, tables, cards, copying.

import { h } from "./dom.js";
import { iso, ms, percent, time } from "./format.js";

export function card(title, ...children) {
  return h("section", { class: "card" }, h("h2", {}, title), children);
}

export function figure(label, value, note, tone = "") {
  return h("div", { class: `figure ${tone}` }, h("dt", {}, label), h("dd", {}, value), note && h("dd", { class: "note" }, note));
}

export const actionPill = (action) => (action ? h("span", { class: `pill action-${action}` }, action) : h("span", { class: "faint" }, "–"));

export function outcomePill(row) {
  const parts = [h("span", { class: `pill outcome-${row.outcome}` }, row.outcome)];
  if (row.reason) parts.push(h("span", { class: "reason" }, row.reason));
  if (row.cancelled) parts.push(h("span", { class: "pill outcome-cancelled" }, `cancelled: ${row.cancelled}`));
  return parts;
}

export function meter(share, label) {
  if (share === null || share === undefined) return h("span", { class: "faint" }, "–");
  const filled = h("span", { style: { width: `${Math.round(Math.max(0, Math.min(1, share)) * 100)}%` } });
  return h("span", { class: "meter" }, h("span", { class: "bar", "aria-hidden": "true" }, filled), label);
}

export function copyButton(text, label) {
  const button = h("button", { type: "button", class: "quiet", title: text }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy:";
      button.after(h("input", { class: "copy-text", readonly: true, value: text, "aria-label": label }));
    }
    setTimeout(() => (button.textContent = label), 2_000);
  });
  return button;
}

export function table(headings, rows, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": headings.map((one) => one.text ?? one).join(", ") },
    h("table", {}, h("thead", {}, h("tr", {}, headings.map((one) => h("th", { scope: "col", class: one.class }, one.text ?? one)))), h("tbody", {}, rows)),
  );
}

const DECISION_HEADINGS = [
  "Time",
  "Symbol",
  "Outcome",
  "Action",
  { text: "Conviction", class: "wide" },
  { text: "Entry", class: "number wide" },
  { text: "Stop", class: "number wide" },
  { text: "Target", class: "number wide" },
  { text: "Latency", class: "number" },
  { text: "Cached", class: "number wide" },
];

export function decisionTable(rows, empty, { symbol = true } = {}) {
  const headings = symbol ? DECISION_HEADINGS : DECISION_HEADINGS.filter((one) => one !== "Symbol");
  return table(headings, rows.map((row) => decisionRow(row, symbol)), empty);
}

function decisionRow(row, symbol) {
  const number = (value) => h("td", { class: "number wide" }, value ?? "–");
  const cached = row.prompt_tokens && row.cached_tokens !== null ? row.cached_tokens / row.prompt_tokens : null;
  return h(
    "tr",
    {},
    h("td", { class: "time" }, h("a", { href: `/decision/${row.trigger_id}`, title: iso(row.ts_done_ms) }, time(row.ts_done_ms))),
    symbol && h("td", {}, h("a", { href: `/symbol/${encodeURIComponent(row.symbol)}` }, row.symbol), h("span", { class: "faint" }, ` ${row.interval}`)),
    h("td", {}, outcomePill(row)),
    h("td", {}, actionPill(row.action)),
    h("td", { class: "wide" }, meter(row.conviction, row.conviction === null ? "" : row.conviction.toFixed(2))),
    number(row.entry),
    number(row.stop),
    number(row.target),
    h("td", { class: "number" }, ms(row.total_ms)),
    h("td", { class: "number wide" }, percent(cached)),
  );
}

export const loading = (what) => h("p", { class: "loading", role: "status" }, `Loading ${what}…`);

export function failed(error, again) {
  return h("div", { class: "card failed" }, h("p", {}, error.message), again && h("button", { type: "button", onclick: again }, "Try again"));
}
