// Symbol: candles with signals as orders, indicators, what the vision model saw, and the symbol's decisions.

import { get } from "./api.js";
import { Candles } from "./candles.js";
import { h, replace, svg } from "./dom.js";
import { dateTime, duration, percent, price } from "./format.js";
import { actionPill, card, decisionTable, failed, figure, loading, meter, outcomePill, table } from "./parts.js";

const RELOAD_MS = 1_000;
const LIST_MS = 3_000;

export function symbols(root) {
  const box = h("section", { class: "card" }, loading("the symbols"));
  let gone = false;

  async function load() {
    try {
      const known = await get("/api/symbols");
      const rows = known.map((one) => h("tr", {}, h("td", {}, h("a", { href: `/symbol/${encodeURIComponent(one.symbol)}` }, one.symbol)), h("td", {}, one.intervals.join(", ")), h("td", { class: "number" }, one.last_close ?? "–")));
      if (!gone) replace(box, table(["Symbol", "Intervals", { text: "Last close", class: "number" }], rows, "No bar is in memory yet. Symbols appear as soon as market features arrive."));
    } catch (error) {
      if (!gone) replace(box, failed(error, load));
    }
  }

  replace(root, h("h1", {}, "Symbols"), box);
  load();
  const timer = setInterval(() => document.activeElement?.closest("main a") || load(), LIST_MS);
  return {
    destroy() {
      gone = true;
      clearInterval(timer);
    },
  };
}

export function symbol(root, live, name, askHalt) {
  let interval = null;
  let view = null;
  let candles = null;
  let reload = null;
  const box = h("div", { class: "candles", role: "img", "aria-label": `Candles of ${name} with signals` });
  const parts = { head: h("div", { class: "head" }), signal: h("div"), vision: h("div"), indicators: h("div"), rows: h("div") };

  async function load() {
    const query = interval ? `?${new URLSearchParams({ interval })}` : "";
    try {
      const next = await get(`/api/symbols/${encodeURIComponent(name)}${query}`);
      const first = !view || view.interval !== next.interval;
      view = next;
      if (first) lay();
      else candles.set(view);
      drawParts();
    } catch (error) {
      if (!view) replace(root, h("h1", {}, name), failed(error, load));
    }
  }

  function lay() {
    candles?.destroy();
    replace(
      root,
      parts.head,
      h(
        "div",
        { class: "grid side" },
        h("div", { class: "stack" }, h("section", { class: "card chart-card" }, h("h2", { class: "hidden" }, "Chart"), box, legend()), h("section", { class: "card tall" }, h("h2", {}, "Decisions"), parts.rows)),
        h("div", { class: "stack" }, parts.signal, parts.vision, parts.indicators),
      ),
    );
    candles = new Candles(box, view);
  }

  function drawParts() {
    const last = view.bars.at(-1);
    const before = view.bars.at(-2);
    const change = last && before ? last.close / before.close - 1 : null;
    replace(
      parts.head,
      h("h1", {}, view.symbol),
      h("div", { class: "choices", role: "group", "aria-label": "Interval" }, view.intervals.map((one) => h("button", { type: "button", "aria-pressed": String(one === view.interval), onclick: () => choose(one) }, one))),
      last && h("span", { class: "price" }, price(last.close, view.decimals), h("small", {}, ` ${view.currency ?? ""}`)),
      change !== null && h("span", { class: change >= 0 ? "good" : "bad" }, `${change >= 0 ? "+" : ""}${percent(change, 2)}`),
      last && h("span", { class: "faint" }, `${last.closed ? "closed" : "forming"}, ${dateTime(last.ts_close_ms)} UTC`),
      view.halted && h("span", { class: "pill outcome-failed" }, `halted: ${view.halted}`),
      h("button", { type: "button", class: "quiet", onclick: () => askHalt(view.symbol, view.symbol in live.now.halt.symbols) }, view.symbol in live.now.halt.symbols ? "Resume symbol" : "Halt symbol"),
    );
    replace(parts.signal, signalCard(view));
    replace(parts.vision, visionCard(view));
    replace(parts.indicators, indicatorCard(view));
    replace(parts.rows, decisionTable(view.decisions.slice(0, 50), "No decision on this symbol is in memory.", { symbol: false }));
  }

  function choose(one) {
    interval = one;
    load();
  }

  replace(root, loading(name));
  load();
  return {
    follows: name,
    events(pairs) {
      for (const [kind, value] of pairs) {
        if (kind === "bar" && value.interval === view?.interval) candles.update(value.bar);
      }
      const changed = pairs.some(([kind, value]) => kind === "vision" || (kind !== "bar" && value.symbol === name));
      // A trigger brings several events at once: one request reads them all.
      if (changed && !reload) reload = setTimeout(() => ((reload = null), load()), RELOAD_MS);
    },
    now() {},
    destroy() {
      clearTimeout(reload);
      candles?.destroy();
    },
  };
}

function legend() {
  const key = (name, text) => h("li", {}, h("span", { class: `key ${name}`, "aria-hidden": "true" }), text);
  return h("ul", { class: "legend" }, key("target", "entry to target"), key("stop", "entry to stop"), key("valid", "darker: may be opened"), key("width", "width: horizon"), key("cancelled", "grey arrow: cancelled"));
}

function signalCard(view) {
  const newest = view.signals[0];
  if (!newest) return card("Last signal", h("p", { class: "empty" }, "No signal on this symbol is in memory."));
  const { row } = newest;
  const show = (one) => (one === null ? "–" : one);
  return card(
    "Last signal",
    h("p", { class: "line" }, actionPill(row.action), outcomePill(row), h("a", { href: `/decision/${row.trigger_id}` }, "prompt and answer")),
    h("dl", { class: "figures small" }, figure("Entry", show(row.entry)), figure("Stop", show(row.stop), null, "bad"), figure("Target", show(row.target), null, "good")),
    newest.probabilities && probabilities(newest.probabilities),
    newest.result && resultLine(newest.result),
    h("p", { class: "faint" }, `as of ${dateTime(newest.as_of_ms)} UTC, valid for ${duration(newest.validity_ms)}${newest.horizon_bars ? `, horizon ${newest.horizon_bars} bars` : ""}`),
  );
}

export function probabilities(all) {
  return h("ul", { class: "probabilities", "aria-label": "Action probabilities" }, Object.entries(all).map(([action, share]) => h("li", {}, actionPill(action), meter(share, percent(share, 1)))));
}

export function resultLine(result) {
  const net = result.return_net;
  const made = net === null || net === undefined ? "" : `${net >= 0 ? "+" : ""}${percent(net, 2)} net`;
  return h("p", { class: "line" }, "Judged: ", h("strong", {}, result.exit_reason), made && h("span", { class: net >= 0 ? "good" : "bad" }, made), h("span", { class: "faint" }, `${result.bars_held} bars held`));
}

function visionCard(view) {
  const { vision } = view;
  if (!vision) return card("Vision", h("p", { class: "empty" }, "No vision features of this interval are in memory."));
  const patterns = vision.patterns.map((one) => h("tr", {}, h("td", {}, one.label), h("td", { class: "number" }, one.score.toFixed(2)), h("td", { class: "number" }, `${one.first_bar} to ${one.last_bar}`)));
  return card(
    "What the vision model saw",
    vision.image ? picture(vision) : h("p", { class: "empty" }, "The image cannot be drawn again: its bars are not in memory."),
    h("p", { class: "line" }, h("span", {}, `p(up) ${vision.p_up.toFixed(3)}`), h("span", { class: "faint" }, vision.beats_chance ? vision.detector : `${vision.detector}, not proven better than chance`)),
    patterns.length ? table(["Pattern", { text: "Score", class: "number" }, { text: "Bars", class: "number" }], patterns, "") : h("p", { class: "faint" }, "No pattern was found in this window."),
  );
}

function picture(vision) {
  const image = h("img", { src: vision.image, alt: `Chart of ${vision.window_bars} bars as the vision model saw it`, class: "seen" });
  const spans = vision.patterns.map((one, at) =>
    svg("rect", { x: (100 * one.first_bar) / vision.window_bars, width: (100 * (one.last_bar - one.first_bar + 1)) / vision.window_bars, y: 1 + at * 3, height: 98 - at * 6, class: `span span-${at % 4}` }),
  );
  const hash = vision.image_matches ? h("span", { class: "good" }, "✓ same pixels as in the features") : h("span", { class: "bad" }, "✗ drawn again with other pixels: bars have changed since");
  return h("figure", { class: "vision" }, h("div", { class: "frame" }, image, svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, spans)), h("figcaption", {}, hash));
}

function indicatorCard(view) {
  const features = Object.entries(view.bars.findLast((one) => one.closed)?.features ?? {});
  return card("Indicators", table(["Name", { text: "Value", class: "number" }], features.map(([name, value]) => h("tr", {}, h("td", {}, name), h("td", { class: "number" }, Number(value.toPrecision(6))))), "The last bar has no indicators."));
}
