// The page's copy of the present: read once, then kept up by the event stream, which goes on from where it was after it is lost.

import { get } from "./api.js";

const MAX_DECISIONS = 200;
const MAX_POINTS = 720;
const DRAW_EVERY_MS = 250;
const RETRY_MS = 1_500;

export class Live extends EventTarget {
  constructor() {
    super();
    this.status = "connecting";
    this.state = null;
    this.decisions = new Map();
    this.timeline = new Map();
    this.unreadable = [];
    this.symbol = "";
    this.lastHeardMs = 0;
    this.frames = 0;
    this.pending = [];
  }

  get now() {
    return this.state.now;
  }

  get rows() {
    return [...this.decisions.values()].reverse();
  }

  async load() {
    const state = await get("/api/state");
    this.state = state;
    this.decisions = new Map(state.decisions.reverse().map((row) => [row.trigger_id, row]));
    this.timeline = new Map(state.now.timeline.map((point) => [point.at_ms, point]));
    this.unreadable = state.unreadable;
    this.position = state.last_event_id;
    this.emit("reload");
  }

  follow(symbol) {
    if (this.stream && this.symbol === symbol) return;
    this.symbol = symbol;
    this.open();
  }

  open() {
    this.stream?.close();
    clearTimeout(this.retry);
    const stream = new EventSource(`/api/events?${new URLSearchParams({ after: this.position, symbol: this.symbol })}`);
    this.stream = stream;
    stream.onopen = () => this.setStatus("live");
    stream.onerror = () => {
      this.setStatus("lost");
      // A browser gives up on a stream that is refused; a console that restarts refuses for a while.
      if (stream.readyState === EventSource.CLOSED) this.retry = setTimeout(() => this.open(), RETRY_MS);
    };
    stream.addEventListener("frame", (event) => this.take(event, JSON.parse(event.data)));
    stream.addEventListener("now", (event) => this.takeNow(event, JSON.parse(event.data)));
    stream.addEventListener("resync", async () => {
      try {
        await this.load();
        this.open();
      } catch {
        this.retry = setTimeout(() => this.open(), RETRY_MS);
      }
    });
  }

  take(event, pairs) {
    this.heard(event);
    for (const [kind, value] of pairs) {
      if (kind === "decision") this.putDecision(value);
      else if (kind === "unreadable") this.unreadable = [...this.unreadable, value].slice(-100);
    }
    this.pending.push(...pairs);
    if (this.pending.length > 5_000) this.pending = this.pending.slice(-1_000);
    this.draw();
  }

  putDecision(row) {
    this.decisions.set(row.trigger_id, row);
    if (this.decisions.size > MAX_DECISIONS) this.decisions.delete(this.decisions.keys().next().value);
  }

  takeNow(event, now) {
    this.heard(event);
    for (const point of now.timeline) this.timeline.set(point.at_ms, point);
    while (this.timeline.size > MAX_POINTS) this.timeline.delete(this.timeline.keys().next().value);
    now.halt.may_change = this.state.now.halt.may_change;
    this.state.now = now;
    this.emit("now");
  }

  heard(event) {
    this.position = event.lastEventId || this.position;
    this.lastHeardMs = Date.now();
    this.setStatus("live");
  }

  // However many events come, the page is drawn four times a second.
  draw() {
    if (this.drawing) return;
    this.drawing = setTimeout(() => {
      this.drawing = null;
      requestAnimationFrame(() => {
        this.frames += 1;
        const events = this.pending;
        this.pending = [];
        this.emit("events", events);
      });
    }, DRAW_EVERY_MS);
  }

  setStatus(status) {
    if (this.status === status) return;
    this.status = status;
    this.emit("status");
  }

  emit(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
