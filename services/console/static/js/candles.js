// The candle chart of a symbol: bars, volume, averages, and each signal as an order: entry to target, entry to stop, up to its horizon.

import { CandlestickSeries, ColorType, HistogramSeries, LineSeries, createChart, createSeriesMarkers } from "../vendor/lightweight-charts/lightweight-charts.mjs";
import { color } from "./charts.js";

const AVERAGES = ["ema_fast", "ema_slow", "sma_fast", "sma_slow", "vwap"];
const AVERAGE_COLORS = ["blue", "amber", "violet", "green", "red"];
const SHOWN_ORDERS = 12;
const SHOWN_BARS = 90;
const LEAST_WIDTH = 3;
const LEAST_SPACING = 9;

export class Candles {
  constructor(box, view) {
    this.box = box;
    const text = color("faint");
    this.chart = createChart(box, {
      width: box.clientWidth,
      height: box.clientHeight,
      layout: { background: { type: ColorType.Solid, color: color("card") }, textColor: text, attributionLogo: false, fontFamily: "system-ui, sans-serif", fontSize: 11, panes: { separatorColor: color("grid") } },
      grid: { vertLines: { color: color("grid") }, horzLines: { color: color("grid") } },
      rightPriceScale: { borderVisible: false },
      timeScale: { borderVisible: false, timeVisible: !view.interval.endsWith("d") && !view.interval.endsWith("w"), rightOffset: 6 },
      crosshair: { mode: 0 },
    });
    const format = { type: "price", precision: view.decimals, minMove: 10 ** -view.decimals };
    this.bars = this.chart.addSeries(CandlestickSeries, { upColor: color("green"), downColor: color("red"), wickUpColor: color("green"), wickDownColor: color("red"), borderVisible: false, priceFormat: format });
    this.volume = this.chart.addSeries(HistogramSeries, { priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.86, bottom: 0 } });
    this.averages = new Map();
    this.orders = new Orders();
    this.bars.attachPrimitive(this.orders);
    this.markers = createSeriesMarkers(this.bars, []);
    this.format = format;
    this.set(view);
    this.observer = new ResizeObserver(() => this.chart.resize(box.clientWidth, box.clientHeight));
    this.observer.observe(box);
    const last = view.bars.length;
    const shown = Math.min(SHOWN_BARS, Math.max(20, Math.round(box.clientWidth / LEAST_SPACING)));
    this.chart.timeScale().setVisibleLogicalRange({ from: last - shown, to: last + 6 });
  }

  set(view) {
    const bars = view.bars;
    this.bars.setData(bars.map(candle));
    this.volume.setData(bars.map(volume));
    const close = bars.at(-1)?.close ?? 0;
    AVERAGES.forEach((name, at) => {
      const values = bars.filter((bar) => bar.features[name] !== undefined).map((bar) => ({ time: timeOf(bar), value: bar.features[name] }));
      // Some feature sets hold distances under these names: only what is near the price is a price.
      if (values.length && Math.abs(values.at(-1).value / close - 1) < 0.5) this.average(name, AVERAGE_COLORS[at]).setData(values);
    });
    const byClose = new Map(bars.map((bar, at) => [bar.ts_close_ms, at]));
    // What it rests on may end with a bar of a slower interval: then the bar that triggered is its place.
    const place = (one) => byClose.get(one.as_of_ms) ?? byClose.get(one.row.ts_event_ms);
    const drawn = view.signals.filter((one) => place(one) !== undefined);
    // A cancelled order stays as a grey arrow: a symbol's signals often supersede one another bar by bar.
    this.orders.set(drawn.filter((one) => one.row.entry !== null && !one.row.cancelled).slice(0, SHOWN_ORDERS).map((one) => order(one, place(one), bars)));
    const acted = drawn.filter((one) => !["hold", "abstain"].includes(one.row.action));
    this.markers.setMarkers(acted.map((one) => marker(one, bars[place(one)])).sort((one, other) => one.time - other.time));
  }

  average(name, shade) {
    if (!this.averages.has(name)) {
      this.averages.set(name, this.chart.addSeries(LineSeries, { color: color(shade), lineWidth: 1, lastValueVisible: false, priceLineVisible: false, crosshairMarkerVisible: false, priceFormat: this.format }));
    }
    return this.averages.get(name);
  }

  update(bar) {
    this.bars.update(candle(bar));
    this.volume.update(volume(bar));
  }

  destroy() {
    this.observer.disconnect();
    this.chart.remove();
  }
}

const timeOf = (bar) => Math.floor(bar.ts_open_ms / 1000);
const candle = (bar) => ({ time: timeOf(bar), open: bar.open, high: bar.high, low: bar.low, close: bar.close });
const volume = (bar) => ({ time: timeOf(bar), value: bar.volume, color: `${color(bar.close >= bar.open ? "green" : "red")}33` });

function order(one, at, bars) {
  const entry = Number(one.row.entry);
  const interval = bars[at].ts_close_ms - bars[at].ts_open_ms;
  return {
    at,
    bars: one.horizon_bars ?? 1,
    valid: Math.min(1, one.validity_ms / Math.max(1, interval)),
    entry,
    stop: Number(one.row.stop),
    target: Number(one.row.target),
  };
}

function marker(one, bar) {
  const { action, cancelled } = one.row;
  const shades = { buy: "green", sell: "red", exit: "amber" };
  return {
    time: timeOf(bar),
    position: action === "sell" ? "aboveBar" : "belowBar",
    shape: action === "buy" ? "arrowUp" : action === "sell" ? "arrowDown" : "circle",
    color: cancelled ? color("faint") : color(shades[action] ?? "blue"),
    text: one.result && !cancelled ? one.result.exit_reason : "",
  };
}

// Draws each order as two boxes, with the span in which it could be opened darker.
class Orders {
  constructor() {
    this.all = [];
    this.views = [{ zOrder: () => "bottom", renderer: () => ({ draw: (target) => this.draw(target) }) }];
  }

  attached({ chart, series, requestUpdate }) {
    Object.assign(this, { chart, series, requestUpdate });
  }

  paneViews() {
    return this.views;
  }

  set(all) {
    this.all = all;
    this.requestUpdate?.();
  }

  draw(target) {
    target.useBitmapCoordinateSpace(({ context, horizontalPixelRatio: across, verticalPixelRatio: down }) => {
      for (const one of this.all) {
        // Positions between bars have no coordinate: an order begins half a bar after the middle of its last bar.
        const [last, next, end] = [0, 1, one.bars].map((bars) => this.chart.timeScale().logicalToCoordinate(one.at + bars));
        const half = (next - last) / 2;
        const [left, right] = [last + half, end + half];
        const [entry, stop, goal] = [one.entry, one.stop, one.target].map((price) => this.series.priceToCoordinate(price));
        if ([last, end, entry, stop, goal].includes(null)) continue;
        const box = (to, shade, alpha, width) => {
          context.fillStyle = shade + alpha;
          context.fillRect(left * across, Math.min(entry, to) * down, Math.max(LEAST_WIDTH, width) * across, Math.abs(to - entry) * down);
        };
        const valid = ((right - left) / one.bars) * one.valid;
        for (const [to, shade] of [[goal, color("green")], [stop, color("red")]]) {
          box(to, shade, "2e", right - left);
          box(to, shade, "55", valid);
          context.fillStyle = shade;
          context.fillRect(left * across, to * down - down / 2, (right - left) * across, down);
        }
        context.fillStyle = color("text");
        context.fillRect(left * across, entry * down - down / 2, (right - left) * across, down);
      }
    });
  }
}
