// Score: what the judged signals made, beside chance under the same rules, and shadow beside live.

import { get } from "./api.js";
import { Chart, color, column, line } from "./charts.js";
import { h, replace, svg } from "./dom.js";
import { basisPoints, count, estimate, percent } from "./format.js";
import { card, failed, figure, loading, table } from "./parts.js";

const BINS = 40;

export function score(root, live) {
  let charts = [];
  let gone = false;
  let waiting = null;

  async function load() {
    try {
      const given = await get("/api/score");
      if (gone) return;
      charts.forEach((one) => one.destroy());
      charts = [];
      if (!given.sides.length) {
        replace(root, h("h1", {}, "Score"), h("section", { class: "card empty-view" }, h("p", {}, h("strong", {}, "No signal has been judged yet.")), h("p", {}, "The scorer publishes a result when a position ends at its target, its stop or its horizon. Start it with ", h("code", {}, "python -m services.scoring"), ".")));
        return;
      }
      const range = equityRange(given.sides);
      replace(root, h("h1", {}, "Score"), h("div", { class: given.sides.length > 1 ? "grid two" : "" }, given.sides.map((side) => h("div", { class: "stack" }, given.sides.length > 1 && h("h2", { class: "side" }, side.run_mode), ofSide(side, charts, range)))));
    } catch (error) {
      if (!gone) replace(root, h("h1", {}, "Score"), failed(error, load));
    }
  }

  replace(root, loading("the score"));
  load();
  return {
    // The report is made anew in seconds, not with each result.
    events: (pairs) => pairs.some(([kind]) => kind === "result") && !waiting && (waiting = setTimeout(() => ((waiting = null), load()), 10_000)),
    destroy() {
      gone = true;
      clearTimeout(waiting);
      charts.forEach((one) => one.destroy());
    },
  };
}

// One scale for all sides, so that their curves can be compared.
function equityRange(sides) {
  const all = sides.flatMap((side) => [...side.equity.values, ...side.drawdown, ...(side.hold?.values ?? [])]);
  const [low, high] = all.reduce(([least, most], one) => [Math.min(least, one), Math.max(most, one)], [0, 0]);
  const room = Math.max(0.001, (high - low) * 0.08);
  return [low - room, high + room];
}

function ofSide(side, charts, range) {
  return [
    side.banner && h("p", { class: "banner" }, side.banner),
    h("section", { class: "card verdict" }, h("h2", {}, "Verdict"), h("p", {}, side.verdict), side.cautions.map((one) => h("p", { class: "faint" }, one))),
    h("dl", { class: "figures" }, figure("Judged signals", count(side.signals), `${count(side.opened)} opened, ${count(side.completed)} completed`), figure("Hit rate", side.hit_rate ? percent(side.hit_rate[0], 1) : "–", side.hit_rate ? `95 %: ${percent(side.hit_rate[1], 1)} to ${percent(side.hit_rate[2], 1)}` : "nothing completed"), figure("Mean net return", side.expectancy ? basisPoints(side.expectancy[0]) : "–", side.expectancy ? `95 %: ${estimate(side.expectancy, basisPoints).replace(/^.*\(|\)$/g, "")}` : "nothing opened"), figure("Better than chance", side.chance.length ? percent(side.chance[0].better_than, 1) : "–", side.chance.length ? "of random traders" : "no comparison")),
    card("Equity", equity(side, charts, range)),
    h("div", { class: "grid two" }, card("Against chance", chance(side, charts)), card("Calibration", calibration(side))),
    h("div", { class: "grid two" }, Object.entries(side.breakdowns).map(([by, rows]) => card(`By ${by.toLowerCase()}`, breakdown(by, rows)))),
  ];
}

function equity(side, charts, range) {
  if (side.equity.at.length < 2) return h("p", { class: "empty" }, "There is no curve yet.");
  const at = side.equity.at.map((one) => one / 1000);
  const hold = side.hold ? resampled(side.hold, side.equity.at) : null;
  const show = (_, value) => percent(value, 2);
  const chart = new Chart("Share of the capital won or lost over market time", {
    height: 240,
    series: [line("signals", "blue", { fill: true, width: 2, value: show }), ...(hold ? [line("buy and hold", "faint", { dash: [5, 4], value: show })] : []), line("drawdown", "red", { value: show })],
    scales: { y: { range: () => range } },
    axes: { y: { values: (_, ticks) => ticks.map((one) => `${(one * 100).toFixed(1)} %`), size: 56 } },
  });
  chart.set([at, side.equity.values, ...(hold ? [hold] : []), side.drawdown]);
  charts.push(chart);
  return chart.box;
}

function resampled(series, wanted) {
  let at = -1;
  return wanted.map((one) => {
    while (at + 1 < series.at.length && series.at[at + 1] <= one) at += 1;
    return at < 0 ? null : series.values[at];
  });
}

function chance(side, charts) {
  if (!side.chance.length) return h("p", { class: "empty" }, side.chance_missing);
  const one = side.chance[0];
  const [low, high] = [Math.min(...one.means, side.strategy_mean), Math.max(...one.means, side.strategy_mean)];
  const width = (high - low) / BINS || 1e-6;
  const bins = Array.from({ length: BINS + 1 }, () => 0);
  for (const mean of one.means) bins[Math.floor((mean - low) / width)] += 1;
  const chart = new Chart("Random traders by mean net return, and the signals among them", {
    time: false,
    legend: false,
    height: 170,
    series: [column("random traders", "faint")],
    axes: { x: { label: "mean net return", values: (_, ticks) => ticks.map((tick) => basisPoints(tick)), labelSize: 0 } },
    hooks: { draw: [(plot) => mark(plot, side.strategy_mean)] },
  });
  chart.set([bins.map((_, at) => low + at * width), bins]);
  charts.push(chart);
  return [
    chart.box,
    h("p", { class: "line" }, h("span", {}, h("span", { class: "key signals", "aria-hidden": "true" }), `signals ${basisPoints(side.strategy_mean)}`), h("span", {}, h("span", { class: "key traders", "aria-hidden": "true" }), `random traders ${basisPoints(one.mean)} on average`)),
    side.chance.map((kind) => h("p", { class: "faint" }, `Better than ${percent(kind.better_than, 1)} of ${kind.name}: ${kind.what}`)),
  ];
}

function mark(plot, value) {
  const x = plot.valToPos(value, "x", true);
  plot.ctx.save();
  plot.ctx.fillStyle = color("blue");
  plot.ctx.fillRect(x - devicePixelRatio, plot.bbox.top, 2 * devicePixelRatio, plot.bbox.height);
  plot.ctx.restore();
}

// Hit rate by conviction, each with its interval, on a line from 0 to 100 %.
function calibration(side) {
  const rows = side.calibration.filter((one) => one.hit_rate);
  if (!rows.length) return h("p", { class: "empty" }, "No completed position has a conviction yet.");
  const step = 34;
  const [left, width] = [96, 220];
  const x = (share) => left + share * width;
  const lines = rows.map((one, at) => {
    const y = 18 + at * step;
    const [value, low, high] = one.hit_rate;
    return [
      svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, one.name),
      svg("line", { x1: x(low ?? value), x2: x(high ?? value), y1: y, y2: y, class: "interval" }),
      svg("circle", { cx: x(value), cy: y, r: 5, class: "dot" }),
      svg("text", { x: left + width + 8, y: y + 4 }, `${percent(value)} of ${one.completed}`),
    ];
  });
  const bottom = 8 + rows.length * step;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => [svg("line", { x1: x(share), x2: x(share), y1: 4, y2: bottom, class: "tick" }), svg("text", { x: x(share), y: bottom + 14, "text-anchor": "middle" }, percent(share))]);
  return [svg("svg", { viewBox: `0 0 410 ${bottom + 20}`, class: "calibration", role: "img", "aria-label": "Hit rate by conviction" }, ticks, lines), h("p", { class: "faint" }, side.calibration_sentence)];
}

function breakdown(by, rows) {
  return table(
    [by, { text: "Signals", class: "number" }, { text: "Completed", class: "number wide" }, { text: "Hit rate", class: "number" }, { text: "Mean net return", class: "number" }],
    rows.map((one) => h("tr", {}, h("td", {}, one.name), h("td", { class: "number" }, count(one.signals)), h("td", { class: "number wide" }, count(one.completed)), h("td", { class: "number" }, estimate(one.hit_rate, (value) => percent(value))), h("td", { class: "number" }, estimate(one.mean_return, basisPoints)))),
    "Nothing to show.",
  );
}
