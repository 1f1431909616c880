// Decision: the exact prompt with what was cached, the answer, where the time went, what it rests on, and what became of it.

import { answerView } from "./answer.js";
import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { count, dateTime, duration, ms, percent } from "./format.js";
import { actionPill, card, copyButton, decisionTable, failed, figure, loading, outcomePill } from "./parts.js";
import { probabilities, resultLine } from "./symbol.js";

const STAGES = { fold: "fold", vision_wait: "wait for vision", queue: "queue", prompt: "prompt", first_token: "first token", decision: "decision", publish: "publish" };

export function decisionList(root, live) {
  const rows = h("div");
  const draw = () => replace(rows, decisionTable(live.rows.slice(0, 100), "No decision is in memory yet."));
  replace(root, h("h1", {}, "Decisions"), h("p", { class: "faint" }, "Choose one by its time, or search for a signal_id or trigger_id."), h("section", { class: "card" }, rows));
  draw();
  return { events: draw };
}

export function decision(root, live, wanted) {
  let gone = false;
  const promptBox = h("div", {}, loading("the prompt: it is rebuilt from the log"));

  async function load() {
    replace(root, loading("the decision"));
    try {
      const detail = await get(`/api/decisions/${encodeURIComponent(wanted)}`);
      if (gone) return;
      draw(detail);
      await loadPrompt(detail);
    } catch (error) {
      if (!gone) replace(root, h("h1", {}, "Decision"), failed(error, load));
    }
  }

  async function loadPrompt(detail) {
    if (!detail.audit.prompt_hash) {
      replace(promptBox, h("p", { class: "empty" }, "The model was not asked, so there is no prompt."));
      return;
    }
    try {
      const view = await get(`/api/decisions/${detail.audit.trigger_id}/prompt`);
      if (!gone) replace(promptBox, promptView(view));
    } catch (error) {
      if (!gone) replace(promptBox, failed(error, () => (replace(promptBox, loading("the prompt")), loadPrompt(detail))));
    }
  }

  function draw(detail) {
    const { audit, row } = detail;
    replace(
      root,
      h("div", { class: "head" }, h("h1", {}, h("a", { href: `/symbol/${encodeURIComponent(row.symbol)}` }, row.symbol), h("small", {}, ` ${row.interval} ${row.mode}`)), outcomePill(row), actionPill(row.action), h("span", { class: "faint" }, `${dateTime(audit.ts_done_ms)} UTC`), h("span", { class: "spacer" }), copyButton(detail.command, "Copy as command")),
      h("p", { class: `explanation outcome-${row.outcome}` }, detail.explanation, audit.detail && h("span", { class: "faint" }, ` ${audit.detail}`)),
      h(
        "div",
        { class: "grid side-left" },
        h("div", { class: "stack" }, timeCard(detail), card("What became of it", became(detail)), restsOn(detail), askedCard(detail), idCard(detail)),
        h("div", { class: "stack" }, card("Answer", answerView(detail)), card("Prompt", promptBox)),
      ),
    );
  }

  load();
  return {
    events: (pairs) => pairs.some(([kind, value]) => (kind === "decision" && value.trigger_id.startsWith(wanted)) || (kind === "result" && value.signal_id.startsWith(wanted))) && load(),
    destroy: () => (gone = true),
  };
}

function timeCard(detail) {
  const total = detail.stages.reduce((sum, one) => sum + one.ms, 0);
  const bar = h("div", { class: "stages", role: "img", "aria-label": detail.stages.map((one) => `${STAGES[one.name]} ${ms(one.ms)}`).join(", ") }, detail.stages.map((one) => h("span", { class: `stage-${one.name}`, style: { "flex-grow": String(Math.max(one.ms, total / 200)) }, title: `${STAGES[one.name]} ${ms(one.ms)}` })));
  const rows = detail.stages.map((one) => h("li", {}, h("span", { class: `key stage-${one.name}`, "aria-hidden": "true" }), h("span", {}, STAGES[one.name]), h("span", { class: "number" }, ms(one.ms)), h("span", { class: "number faint" }, percent(total ? one.ms / total : 0))));
  const { audit } = detail;
  const origin = audit.trigger.ts_ms;
  const left = audit.deadline_ms && audit.outcome === "published" ? audit.deadline_ms - origin - total : null;
  return card("Where the time went", detail.stages.length ? [bar, h("ul", { class: "stage-list" }, rows)] : h("p", { class: "empty" }, "It ended before any stage began."), h("p", { class: "line" }, h("strong", {}, ms(total)), "from record to end", left !== null && h("span", { class: left >= 0 ? "good" : "bad" }, `${ms(Math.abs(left))} ${left >= 0 ? "before" : "after"} the deadline`)));
}

function became(detail) {
  const { signal, cancel, result } = detail;
  if (!signal) return h("p", { class: "empty" }, detail.audit.outcome === "published" ? "The signal itself is no longer in memory." : "No signal was published.");
  const show = (value) => value ?? "–";
  return [
    h("dl", { class: "figures small" }, figure("Conviction", signal.conviction === null ? "–" : signal.conviction.toFixed(2)), figure("Entry", show(signal.entry)), figure("Stop", show(signal.stop), null, "bad"), figure("Target", show(signal.target), null, "good"), figure("Reference", signal.ref_price), figure("Valid for", duration(signal.valid_until_ms - signal.as_of.market.ts_ms))),
    signal.probabilities && probabilities(signal.probabilities),
    cancel && h("p", { class: "line" }, h("span", { class: "pill outcome-cancelled" }, `cancelled: ${cancel.reason}`), cancelledBy(cancel.detail)),
    result ? resultLine(result) : h("p", { class: "faint" }, ["buy", "sell"].includes(signal.action) ? "Not judged yet: the scorer publishes the result when the position ends." : "Only buy and sell are judged."),
  ];
}

// A signal that is superseded names the one that took its place.
function cancelledBy(detail) {
  const other = /^by ([0-9a-f-]{36})$/.exec(detail);
  return other ? ["by ", h("a", { href: `/decision/${other[1]}`, class: "id" }, other[1])] : detail;
}

function restsOn(detail) {
  const { audit } = detail;
  const refs = [["Trigger", audit.trigger], ["Market", audit.as_of?.market], ["Vision", audit.as_of?.vision]].filter(([, one]) => one);
  return card(
    "Rests on",
    h("dl", { class: "facts" }, refs.map(([name, one]) => [h("dt", {}, name), h("dd", {}, `${one.topic}[${one.partition}] offset ${count(one.offset)}`, h("span", { class: "faint" }, ` market time ${dateTime(one.ts_event_ms)}, appended ${dateTime(one.ts_ms)}`))]), audit.control_offset !== null && [h("dt", {}, "Control"), h("dd", {}, audit.control_offset < 0 ? "no record yet" : `offset ${count(audit.control_offset)}`)], audit.vision && [h("dt", {}, "Vision was"), h("dd", {}, audit.vision)]),
  );
}

function askedCard(detail) {
  const { audit } = detail;
  if (!audit.engine) return null;
  const rate = audit.cached_tokens !== null && audit.prompt_tokens ? percent(audit.cached_tokens / audit.prompt_tokens, 1) : "–";
  return card("Engine", h("dl", { class: "facts" }, h("dt", {}, "Engine"), h("dd", {}, `${audit.engine} (${audit.source})`), h("dt", {}, "Model"), h("dd", {}, audit.model), h("dt", {}, "Prompt"), h("dd", {}, `${count(audit.prompt_tokens)} tokens, ${rate} cached`), h("dt", {}, "Answer"), h("dd", {}, `${count(audit.output_tokens)} tokens`), audit.accept_length !== null && [h("dt", {}, "Acceptance"), h("dd", {}, `${audit.accept_length.toFixed(2)} tokens a step`)]));
}

function idCard(detail) {
  const { audit } = detail;
  const fact = (name, value) => value && [h("dt", {}, name), h("dd", { class: "id" }, value, copyButton(value, "Copy"))];
  return card("Identity", h("dl", { class: "facts" }, fact("trigger_id", audit.trigger_id), fact("signal_id", audit.signal_id), h("dt", {}, "Audit record"), h("dd", {}, detail.where, " ", h("span", { class: detail.intact ? "good" : "bad" }, detail.intact ? "✓ checksum matches" : "✗ checksum does not match")), h("dt", {}, "Configuration"), h("dd", { class: "id" }, audit.config_version)));
}

function promptView(view) {
  const share = view.cached_tokens !== null && view.prompt_tokens ? view.cached_tokens / view.prompt_tokens : null;
  return [
    h("div", { class: view.matches ? "check good" : "check bad" }, h("strong", {}, view.matches ? "✓ This is the prompt that the model got." : "✗ This is not the prompt that the model got."), h("dl", { class: "facts" }, h("dt", {}, "Rebuilt"), h("dd", { class: "id" }, view.rebuilt_hash), h("dt", {}, "Audit"), h("dd", { class: "id" }, view.audit_hash)), view.problem && h("p", {}, view.problem)),
    h("p", { class: "line" }, h("span", {}, `${count(view.prompt_tokens)} tokens`), h("span", {}, h("span", { class: "key cached", "aria-hidden": "true" }), `${count(view.cached_tokens)} cached (${percent(share, 1)})`), h("span", {}, h("span", { class: "key read", "aria-hidden": "true" }), `${count(view.prompt_tokens - (view.cached_tokens ?? 0))} read`), h("span", { class: "faint" }, `epoch ${view.epoch}`)),
    h("div", { class: "prompt" }, view.sections.map((one, at) => section(one, view.sections[at - 1]))),
  ];
}

function section(one, before) {
  const boundary = one.kind === "since" || (one.kind === "tail" && before?.kind === "page");
  // Pages are many and alike: the newest is open, the others open on demand.
  const open = one.kind !== "page" && one.kind !== "bars";
  return [
    boundary && h("div", { class: "boundary" }, "epoch boundary"),
    h("details", { open, class: `section ${one.kind}` }, h("summary", {}, h("span", {}, one.title), h("span", { class: "number" }, `${count(one.tokens)} tokens`), h("span", { class: one.read ? "pill read" : "pill cached" }, one.read ? (one.cached ? "partly cached" : "read") : "cached")), h("pre", { tabindex: "0" }, one.cached && h("span", { class: "cached" }, one.cached), one.read && h("span", { class: "read" }, one.read))),
  ];
}
