// uPlot in the page's colours: lines over time, stacked columns, histograms. A chart fills its box and follows its size.

import uPlot from "../vendor/uplot/uPlot.mjs";
import { h } from "./dom.js";

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const axis = (extra = {}) => ({
  stroke: color("faint"),
  grid: { stroke: color("grid"), width: 1 },
  ticks: { show: false },
  font: "11px system-ui, sans-serif",
  size: 44,
  ...extra,
});

// Hours and minutes, and the date where the span is of days.
function moments(plot, ticks) {
  const { min, max } = plot.scales.x;
  const [from, to] = max - min > 172_800 ? [2, 10] : max - min > 1_200 ? [11, 16] : [11, 19];
  return ticks.map((one) => new Date(one * 1000).toISOString().slice(from, to));
}

const utc = (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC");

export class Chart {
  constructor(label, { series, height = 190, bands, scales = {}, time = true, axes = {}, legend = true, hooks, range }) {
    this.box = h("div", { class: "chart", role: "img", "aria-label": label });
    this.options = {
      width: 400,
      height,
      tzDate: utc,
      legend: { show: legend, live: true },
      cursor: { y: false, points: { size: 6 } },
      scales: { x: { time, range }, ...scales },
      axes: [axis({ size: 26, values: time ? moments : undefined, space: 70, ...axes.x }), axis(axes.y), ...(axes.y2 ? [axis({ side: 1, grid: { show: false }, ...axes.y2 })] : [])],
      series: [{ label: time ? "UTC" : axes.x?.label, value: time ? (_, at) => (at === null ? "–" : new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ")) : undefined }, ...series],
      bands,
      hooks,
      padding: [10, 6, 0, 0],
    };
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.box);
  }

  set(data) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.resize();
  }

  resize() {
    const width = Math.floor(this.box.clientWidth);
    if (!width || !this.data) return;
    if (!this.plot) this.plot = new uPlot({ ...this.options, width }, this.data, this.box);
    else if (this.plot.width !== width) this.plot.setSize({ width, height: this.options.height });
  }

  destroy() {
    this.observer.disconnect();
    this.plot?.destroy();
  }
}

export function line(label, name, { scale = "y", width = 1.5, dash, fill, value } = {}) {
  return { label, stroke: color(name), width, scale, dash, fill: fill && `${color(name)}22`, value, points: { show: false }, spanGaps: true };
}

// A scale for positive values that differ by powers of ten.
export const logarithmic = { distr: 3, range: (_, low, high) => uPlot.rangeLog(Math.max(1, low ?? 10), Math.max(1, high ?? 1_000), 10, false) };

const columns = uPlot.paths.bars({ size: [0.85, 40], align: 1 });

export function column(label, name, { value } = {}) {
  return { label, stroke: color(name), fill: color(name), width: 0, paths: columns, points: { show: false }, value };
}

// Stacked columns: each series is drawn from 0 to its sum with those before it, the tallest first.
export function stacked(rows) {
  const sums = [];
  let below = rows[0]?.map(() => 0) ?? [];
  for (const row of rows) {
    below = row.map((value, at) => value + below[at]);
    sums.push(below);
  }
  return sums;
}
