// An answer as it streamed: each piece with the moment at which it came, and a player that types it at that speed.

import { h, replace, svg } from "./dom.js";
import { count, ms } from "./format.js";

const THOUGHT_END = "</think>";

export function answerView(detail) {
  const text = detail.audit.answer;
  if (text === null || text === undefined) return h("p", { class: "empty" }, "There is no answer.");
  const stages = detail.stages.map((one) => one.name);
  // Milliseconds from the record to the end of a stage.
  const moment = (name) => (stages.includes(name) ? detail.stages.slice(0, stages.indexOf(name) + 1).reduce((sum, one) => sum + one.ms, 0) : null);
  const [first, decided] = [moment("first_token"), moment("decision")];
  const chunks = detail.audit.answer_chunks ?? [];
  const asked = moment("prompt") ?? 0;
  const pieces = split(text, partsOf(text, detail.row.mode), chunks);
  const spans = pieces.map((one) => h("span", { class: one.part, title: one.ms === null ? null : `${ms(asked + one.ms)} after the record` }, one.text));
  const rest = pieces.some((one) => one.part === "followed") ? ", the rationale follows" : "";
  return [
    first !== null && decided !== null && h("p", { class: "faint" }, `First token ${ms(first)} after the record. Decision complete at ${ms(decided)}: the signal leaves here${rest}.`),
    detail.row.mode === "flash" && h("p", { class: "faint" }, "Mode flash asks for one token and scores the labels that it could be, so there is no text that streamed."),
    h("pre", { class: "answer", tabindex: "0" }, spans),
    chunks.length > 1 && player(pieces, spans, chunks, asked, decided === null ? null : decided - asked),
  ];
}

// Where each part begins: a thought, the decision, and what follows it. The signal leaves when the decision is complete.
function partsOf(text, mode) {
  const thought = mode === "deep" ? text.indexOf(THOUGHT_END) : -1;
  const body = thought < 0 ? 0 : thought + THOUGHT_END.length + /^\s*/.exec(text.slice(thought + THOUGHT_END.length))[0].length;
  // Either JSON with the rationale last, or a line with the rationale below it.
  const end = text.startsWith("{", body) ? text.slice(body).search(/,\s*"rationale"/) : text.slice(body).indexOf("\n");
  const parts = [{ from: body, part: "decided" }, { from: end < 0 ? text.length : body + end, part: "followed" }];
  return body ? [{ from: 0, part: "thought" }, ...parts] : parts;
}

// Cuts the text where a part begins and where a piece ends. Pieces count characters as the worker does, which are code points.
function split(text, parts, chunks) {
  const ends = [];
  let [at, characters] = [0, 0];
  for (const [arrived, by] of chunks) {
    while (characters < by && at < text.length) {
      at += text.codePointAt(at) > 0xffff ? 2 : 1;
      characters += 1;
    }
    ends.push({ at, ms: arrived });
  }
  const cuts = [...new Set([0, text.length, ...parts.map((one) => one.from), ...ends.map((one) => one.at)])].sort((one, other) => one - other);
  return cuts.slice(1).map((to, number) => ({
    text: text.slice(cuts[number], to),
    part: parts.findLast((one) => one.from <= cuts[number]).part,
    ms: ends.find((one) => one.at >= to)?.ms ?? null,
  }));
}

// Times are milliseconds since the question was sent; what is shown is since the record.
function player(pieces, spans, chunks, asked, decided) {
  const last = Math.max(1, chunks.at(-1)[0]);
  const whole = chunks.at(-1)[1];
  const said = h("output", { class: "number", "aria-live": "off" });
  const slider = h("input", { type: "range", min: "0", max: String(last), step: "1", value: String(last), "aria-label": "Show the answer as it was at this moment" });
  const button = h("button", { type: "button", class: "quiet play", onclick: () => (timer ? stop() : play()) }, "Play");
  let timer = null;

  function show(at) {
    slider.value = String(Math.round(at));
    const by = chunks.findLast(([arrived]) => arrived <= at)?.[1] ?? 0;
    spans.forEach((span, number) => span.classList.toggle("unseen", (pieces[number].ms ?? 0) > at));
    replace(said, `${ms(asked + at)}: ${count(by)} of ${count(whole)} characters`);
    slider.setAttribute("aria-valuetext", said.textContent);
  }

  function play() {
    const from = Number(slider.value) >= last ? 0 : Number(slider.value);
    let begun = null;
    const step = (now) => {
      begun ??= now;
      const at = Math.min(last, from + now - begun);
      show(at);
      timer = at < last && slider.isConnected ? requestAnimationFrame(step) : null;
      button.textContent = timer ? "Pause" : "Play";
    };
    timer = requestAnimationFrame(step);
  }

  function stop() {
    cancelAnimationFrame(timer);
    timer = null;
    button.textContent = "Play";
  }

  slider.addEventListener("input", () => (stop(), show(Number(slider.value))));
  slider.addEventListener("keydown", (event) => {
    // One key press is one piece: a millisecond is too little to see.
    const at = Number(slider.value);
    const moments = [0, ...chunks.map(([arrived]) => arrived)];
    const to = ["ArrowRight", "ArrowUp"].includes(event.key) ? (moments.find((one) => one > at) ?? last) : ["ArrowLeft", "ArrowDown"].includes(event.key) ? (moments.findLast((one) => one < at) ?? 0) : null;
    if (to === null) return;
    event.preventDefault();
    stop();
    show(to);
  });
  show(last);
  const x = (at) => (1_000 * at) / last;
  const ticks = chunks.map(([arrived], at) => svg("line", { x1: x(arrived), x2: x(arrived), y1: at ? 6 : 0, y2: 14, class: at ? "piece" : "piece first" }));
  const mark = decided !== null && decided >= 0 && decided <= last && svg("line", { x1: x(decided), x2: x(decided), y1: 0, y2: 14, class: "piece complete" });
  return h(
    "div",
    { class: "stream", role: "group", "aria-label": "The answer over time" },
    h("div", { class: "line" }, button, h("div", { class: "track" }, slider, svg("svg", { viewBox: "0 0 1000 14", preserveAspectRatio: "none", "aria-hidden": "true" }, ticks, mark)), said),
    h("ul", { class: "legend" }, h("li", {}, h("span", { class: "key first", "aria-hidden": "true" }), "first token"), h("li", {}, h("span", { class: "key complete", "aria-hidden": "true" }), "decision complete"), h("li", {}, h("span", { class: "key", "aria-hidden": "true" }), `${count(chunks.length)} pieces`)),
  );
}
