// Overview: decisions as they arrive, latency and outcomes over time, and whether the sums add up.

import { get } from "./api.js";
import { Chart, column, line, logarithmic, stacked } from "./charts.js";
import { h, replace } from "./dom.js";
import { count, duration, ms, percent } from "./format.js";
import { card, decisionTable, figure, table } from "./parts.js";

const OUTCOMES = ["published", "conflated", "stale", "blocked", "failed"];
const SHOWN_ROWS = 60;
const MINUTE_POINTS = 6;

export function overview(root, live) {
  let wanted = "all";
  let older = [];
  const figures = h("dl", { class: "figures", "aria-live": "off" });
  const rows = h("div");
  const sums = h("div");
  const reasons = h("div");
  const unreadable = h("div");
  const latency = new Chart("Milliseconds from a record to its signal: median, 95th and 99th percentile", {
    series: [line("p50", "blue", { fill: true, value: (_, v) => ms(v) }), line("p95", "amber", { value: (_, v) => ms(v) }), line("p99", "red", { value: (_, v) => ms(v) })],
    // Logarithmic: a model on a CPU takes a hundred times as long as one on a GPU, and the demo shows both. Ticks left out are null.
    axes: { y: { values: (_, ticks) => ticks.map((one) => (one === null ? "" : one >= 1_000 ? `${one / 1_000} s` : `${one} ms`)), size: 60 } },
    scales: { y: logarithmic },
  });
  const outcomes = new Chart("Triggers in ten seconds, by outcome", {
    series: [...OUTCOMES].reverse().map((one, at) => column(one, `outcome-${one}`, { value: (plot, _, series, index) => (index === null ? "–" : count(plannedCount(index, OUTCOMES.length - 1 - at))) })),
    scales: { y: { range: (_, low, high) => [0, Math.max(4, (high ?? 0) * 1.1)] } },
  });
  const hits = new Chart("Prefix hits and accepted tokens a step", {
    series: [line("prefix hits", "green", { fill: true, value: (_, v) => percent(v, 1) }), line("accepted tokens", "violet", { scale: "y2", value: (_, v) => v?.toFixed(2) ?? "–" })],
    scales: { y: { range: [0, 1.02] }, y2: { range: (_, low, high) => [1, Math.max(2, (high ?? 0) * 1.1)] } },
    axes: { y: { values: (_, ticks) => ticks.map((one) => `${Math.round(one * 100)} %`) }, y2: { scale: "y2" } },
  });
  let points = [];

  function plannedCount(index, at) {
    return points[index]?.outcomes[OUTCOMES[at]] ?? 0;
  }

  function drawCharts() {
    points = [...live.timeline.values()].sort((one, other) => one.at_ms - other.at_ms);
    const at = points.map((one) => one.at_ms / 1000);
    latency.set([at, points.map((one) => one.p50_ms), points.map((one) => one.p95_ms), points.map((one) => one.p99_ms)]);
    const stack = stacked(OUTCOMES.map((name) => points.map((one) => one.outcomes[name] ?? 0)));
    outcomes.set([at, ...stack.reverse()]);
    hits.set([at, points.map((one) => one.hit_ratio), points.map((one) => one.accept_length)]);
  }

  function drawFigures() {
    const { workers, totals } = live.now;
    const last = points.slice(-MINUTE_POINTS);
    const recent = last.length && live.now.now_ms - last.at(-1).at_ms < 120_000;
    const newest = last.findLast((one) => one.p50_ms !== null);
    const published = last.reduce((sum, one) => sum + (one.outcomes.published ?? 0), 0);
    const hit = last.findLast((one) => one.hit_ratio !== null);
    const reached = workers.reachable > 0;
    const full = workers.kv_tokens ? workers.prefix_tokens / workers.kv_tokens : null;
    replace(
      figures,
      figure("Signals", count(totals.outcomes.published), recent ? `${count(published)} in the last minute` : "none in the last minute"),
      figure("Record to signal", newest ? ms(newest.p50_ms) : "–", newest ? `p95 ${ms(newest.p95_ms)}, p99 ${ms(newest.p99_ms)}` : "no signal yet"),
      figure("Prefix hits", hit ? percent(hit.hit_ratio, 1) : "–", "of prompt tokens"),
      figure("Lanes", reached ? `${count(workers.lanes.running ?? 0)} running` : "–", reached ? `${count((workers.lanes.waiting ?? 0) + (workers.lanes.queued ?? 0))} waiting or queued` : workersNote(workers)),
      figure("Engine", reached && full !== null ? `${percent(full)} full` : "–", engineNote(workers, reached), full > 1 ? "bad" : ""),
      figure("Open triggers", reached ? count(Math.max(0, workers.triggers - workers.ended)) : "–", reached ? `${count(workers.unfinished_records)} unfinished records` : workersNote(workers)),
    );
  }

  function drawSums() {
    const { workers, totals } = live.now;
    const ended = OUTCOMES.reduce((sum, one) => sum + totals.outcomes[one], 0);
    const items = [sum("Triggers in the audit", totals.triggers, OUTCOMES.map((one) => [one, totals.outcomes[one]]), ended)];
    if (workers.reachable) {
      const ends = ["folded", "duplicate", "filtered", "dead_lettered"];
      const read = ends.reduce((all, one) => all + (workers.records[one] ?? 0), 0);
      items.push(sum("Records read by the workers", read, ends.map((one) => [one.replace("_", "-"), workers.records[one] ?? 0]), read));
      items.push(sum("Triggers made by the workers", workers.triggers, [["ended", workers.ended], ["open", workers.triggers - workers.ended]], workers.triggers));
    }
    replace(sums, items);
    const most = Math.max(1, ...Object.values(totals.reasons));
    replace(
      reasons,
      table(
        ["Outcome", "Reason", { text: "Triggers", class: "number" }, { text: "Share", class: "wide" }],
        Object.entries(totals.reasons).slice(0, 8).map(([name, times]) => {
          const [outcome, reason] = name.split("/");
          const bar = h("span", { class: `share outcome-${outcome}`, style: { width: `${(100 * times) / most}%` } });
          return h("tr", {}, h("td", {}, h("span", { class: `pill outcome-${outcome}` }, outcome)), h("td", {}, reason), h("td", { class: "number" }, count(times)), h("td", { class: "wide share-cell" }, bar));
        }),
        totals.triggers ? "Every trigger so far ended with a signal." : "No trigger has ended yet.",
      ),
    );
    replace(unreadable, live.unreadable.length ? unreadableCard(live) : null);
  }

  function drawRows() {
    // The page holds the newest decisions of all kinds; of one kind the console has older ones.
    const rest = older.filter((row) => !live.decisions.has(row.trigger_id));
    const shown = [...live.rows.filter((row) => wanted === "all" || row.outcome === wanted), ...rest].slice(0, SHOWN_ROWS);
    replace(rows, live.rows.length ? decisionTable(shown, `No ${wanted} trigger is in memory.`) : noDecisionYet(live.now));
  }

  function choices() {
    return h(
      "div",
      { class: "choices", role: "group", "aria-label": "Show outcomes" },
      ["all", ...OUTCOMES].map((one) =>
        h("button", { type: "button", "aria-pressed": String(one === wanted), onclick: (event) => choose(one, event.currentTarget) }, one),
      ),
    );
  }

  async function choose(one, button) {
    wanted = one;
    older = [];
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
    drawRows();
    if (one === "all") return;
    const found = await get(`/api/decisions?${new URLSearchParams({ outcome: one, limit: SHOWN_ROWS })}`).catch(() => []);
    if (wanted === one) {
      older = found;
      drawRows();
    }
  }

  replace(
    root,
    h("h1", { class: "hidden" }, "Overview"),
    figures,
    h("div", { class: "grid three" }, card("Record to signal", latency.box), card("Outcomes", outcomes.box), card("Prefix hits and acceptance", hits.box)),
    h(
      "div",
      { class: "grid side" },
      h("section", { class: "card tall" }, h("div", { class: "card-head" }, h("h2", {}, "Decisions"), choices()), rows),
      h("div", { class: "stack" }, card("Sums", sums), card("Why nothing was sent", reasons)),
    ),
    unreadable,
  );
  const draw = () => {
    drawCharts();
    drawFigures();
    drawSums();
  };
  draw();
  drawRows();
  return {
    now() {
      draw();
      if (!live.rows.length) drawRows();
    },
    events: (pairs) => pairs.some(([kind]) => kind === "decision" || kind === "unreadable") && drawRows(),
    destroy: () => [latency, outcomes, hits].forEach((one) => one.destroy()),
  };
}

function sum(title, total, parts, ended) {
  const closes = Math.round(total) === Math.round(ended);
  return h(
    "div",
    { class: "sum" },
    h("p", {}, h("strong", {}, count(total)), ` ${title} `, h("span", { class: closes ? "good" : "bad" }, closes ? "✓ adds up" : `✗ ${count(total - ended)} missing`)),
    h("p", { class: "parts" }, parts.map(([name, value], at) => [at ? " + " : "= ", h("span", {}, `${count(value)} ${name}`)])),
  );
}

// Before the first decision: what the workers have read, and where to look meanwhile.
function noDecisionYet({ workers }) {
  const read = workers.reachable ? `The workers have folded ${count(workers.records.folded ?? 0)} records, and rebuild their state from them before they ask the model. ` : "";
  return h("p", { class: "empty" }, "No decision yet. ", read, "A decision appears here as soon as a worker has written its audit record. Meanwhile, see the ", h("a", { href: "/symbol" }, "symbols and their bars"), ".");
}

function workersNote(workers) {
  return workers.configured ? "no worker answers" : "no worker is configured";
}

function engineNote(workers, reached) {
  if (!reached) return workersNote(workers);
  const silent = workers.engine_silent_s === null ? "" : `last token ${duration(workers.engine_silent_s * 1000)} ago`;
  const accepted = workers.accept_length === null ? "" : `${workers.accept_length.toFixed(2)} tokens a step`;
  return [accepted, silent].filter(Boolean).join(", ") || "cache size unknown";
}

function unreadableCard(live) {
  return card(
    `Unreadable records: ${count(live.now.feed.unreadable)}`,
    table(
      ["Where", "Problem", "Begins with"],
      live.unreadable.slice(-10).reverse().map((one) => h("tr", {}, h("td", {}, one.where), h("td", {}, one.problem), h("td", { class: "excerpt" }, one.excerpt))),
      "",
    ),
  );
}
