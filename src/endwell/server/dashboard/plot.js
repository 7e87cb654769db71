/** Endings over time, stacked by cause or by code: a plot, its legend, and the same numbers as a table. */

import { count, h, keyed, mark, minute, plural, s, say, swatch, words } from "./dom.js";

const PERIODS = { minutes: { seconds: 60, bars: 60, tick: 10, text: "minute" }, hours: { seconds: 3600, bars: 24, tick: 3, text: "hour" } };
/** The order of the stack, from the bottom: causes of one kind lie together. The rest follows. */
const STACK = [
  ...["peer_closed", "app_closed", "handler_returned", "cancelled"],
  ...["server_drained", "shed", "lifetime_reached", "replaced"],
  ...["auth_expired", "auth_refused", "auth_revoked"],
  ...["keepalive_timeout", "write_timeout", "idle_timeout"],
  ...["slow_peer", "message_too_big", "policy_limit", "room_gap"],
  ...["peer_vanished", "connection_reset", "network_error", "tls_error"],
  ...["handshake_rejected", "handshake_failed"],
  ...["protocol_error", "invalid_data", "handler_error"],
];
const HEIGHT = 220;
const LEFT = 44;
const TOP = 10;
const BOTTOM = 24;

/** A round number of at least `value`, and the distance of its lines. */
export function scale(value) {
  const step = [1, 2, 5].flatMap((each) => [0, 1, 2, 3, 4, 5, 6].map((power) => each * 10 ** power)).sort((a, b) => a - b).find((each) => each * 5 >= value) ?? value / 5;
  return { step, top: Math.max(step, Math.ceil(value / step) * step) };
}

export class Plot {
  period = "minutes";
  kind = "cause";
  #bars = [];
  #series = [];
  #chosen = null;
  #drawn = "";
  #told = "";
  #label;
  #title;
  #pick;

  /** `label(name)` is the text of a series, `title(name)` explains it; `pick(kind, name)` is called when one is chosen in the legend. */
  constructor(place, { label, title, pick }) {
    this.#label = label;
    this.#title = title;
    this.#pick = pick;
    this.svg = s("svg", { "aria-hidden": "true", height: HEIGHT });
    this.tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.canvas = h("div", { class: "canvas", role: "slider", tabindex: "0", "aria-label": "Endings over time", "aria-valuemin": "0" }, this.svg, this.tip);
    this.legend = h("ul", { class: "legend", "aria-label": "Legend" });
    this.details = h("details", { class: "numbers", toggle: () => this.#table() }, h("summary", {}, "The same numbers as a table"), h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Endings over time as a table" }));
    place.append(h("div", { class: "drawing" }, this.canvas, this.legend), this.details);
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => this.#choose(null));
    this.canvas.addEventListener("focus", () => this.canvas.matches(":focus-visible") && this.#choose(this.#chosen ?? this.#bars.length - 1));
    this.canvas.addEventListener("blur", () => this.#choose(null));
    this.legend.addEventListener("click", (event) => this.#chosenInLegend(event));
    for (const type of ["pointerover", "focusin"]) this.legend.addEventListener(type, (event) => this.#highlight(event.target.closest("button")?.dataset.series));
    for (const type of ["pointerleave", "focusout"]) this.legend.addEventListener(type, () => this.#highlight(undefined));
    new ResizeObserver(() => this.#draw()).observe(this.canvas);
    this.show({ at: Date.now() / 1000, endings: { minutes: [], hours: [] } });
  }

  /** Show the endings of a summary; `chosen` is the series that the list below is filtered by. */
  show({ at, endings }, chosen = null) {
    const { seconds, bars } = PERIODS[this.period];
    const now = Math.floor(at / seconds);
    const known = new Map(endings[this.period].map(([time, causes, codes]) => [time, (this.kind === "cause" ? causes : codes) ?? {}]));
    this.#bars = Array.from({ length: bars }, (_, index) => ({ time: now - bars + 1 + index, counts: known.get(now - bars + 1 + index) ?? {} }));
    const totals = new Map();
    for (const { counts } of this.#bars) for (const [name, number] of Object.entries(counts)) totals.set(name, (totals.get(name) ?? 0) + number);
    const place = (name) => (STACK.indexOf(name) + 1 || STACK.length + 1) * 1e6 + (Number(name) || 0);
    this.#series = [...totals].filter(([, total]) => total).map(([name, total]) => ({ name, total })).sort((a, b) => place(a.name) - place(b.name));
    this.picked = chosen;
    mark(this.canvas, "aria-valuemax", bars - 1);
    this.#draw();
    this.#list();
    this.#table();
  }

  #when({ time }) {
    const { seconds } = PERIODS[this.period];
    return `${minute(time * seconds)}–${minute((time + 1) * seconds)}`;
  }

  #draw() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    const state = JSON.stringify([width, this.#bars, this.#chosen]);
    if (state === this.#drawn) return;
    this.#drawn = state;
    const { seconds, tick } = PERIODS[this.period];
    const sums = this.#bars.map(({ counts }) => Object.values(counts).reduce((a, b) => a + b, 0));
    const { step, top } = scale(Math.max(4, ...sums));
    const height = HEIGHT - TOP - BOTTOM;
    const y = (value) => TOP + height * (1 - value / top);
    const slot = (width - LEFT) / this.#bars.length;
    const parts = [];
    for (let value = 0; value <= top + step / 2; value += step)
      parts.push(s("line", { class: value ? "grid" : "axis", x1: LEFT, x2: width, y1: y(value), y2: y(value) }), s("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, count(value)));
    for (const [index, bar] of this.#bars.entries()) {
      const x = LEFT + index * slot;
      const local = new Date(bar.time * seconds * 1000);
      const unit = this.period === "minutes" ? local.getMinutes() : local.getHours();
      if (unit % (width < 420 ? tick * 2 : tick) === 0 && x + 18 < width && x - 18 > LEFT - 20)
        parts.push(s("text", { x: x + slot / 2, y: HEIGHT - 6, "text-anchor": "middle" }, minute(bar.time * seconds)));
      if (index === this.#chosen) parts.push(s("rect", { class: "chosen", x, width: slot, y: TOP, height }));
      let sum = 0;
      for (const { name } of this.#series) {
        const value = bar.counts[name] ?? 0;
        if (!value) continue;
        const high = (height * value) / top;
        // A line of the background divides the parts, unless they are too thin for it.
        const gap = high > 3 ? 1 : 0;
        parts.push(s("rect", { class: "part", "data-series": name, x: x + slot * 0.1, width: slot * 0.8, y: y(sum + value) + gap / 2, height: Math.max(0.5, high - gap), rx: slot > 8 && high > 4 ? 1.5 : 0 }));
        sum += value;
      }
    }
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
    this.#tell(slot, width, sums);
  }

  /** The bar that is pointed at, in words: beside it, and as the value of the slider. */
  #tell(slot, width, sums) {
    const index = this.#chosen ?? this.#bars.length - 1;
    const bar = this.#bars[index];
    const rows = this.#series.filter(({ name }) => bar.counts[name]).reverse();
    mark(this.canvas, "aria-valuenow", index);
    mark(this.canvas, "aria-valuetext", `${this.#when(bar)}: ${plural(sums[index], "ending")}${rows.length ? ": " : ""}${rows.map(({ name }) => `${count(bar.counts[name])} ${this.#label(name)}`).join(", ")}`);
    this.tip.hidden = this.#chosen === null;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(
      h("strong", {}, this.#when(bar)),
      h("span", { class: "soft" }, plural(sums[index], "ending")),
      h("ul", {}, rows.slice(0, 10).map(({ name }) => h("li", {}, swatch(name), h("span", {}, this.#label(name)), h("b", {}, count(bar.counts[name]))))),
      ...(rows.length > 10 ? [h("span", { class: "soft" }, `and ${rows.length - 10} more`)] : []),
    );
    const x = LEFT + (index + 0.5) * slot;
    const own = this.tip.offsetWidth;
    this.tip.style.transform = `translateX(${Math.max(0, Math.min(width - own, x + 14 + own > width ? x - own - 14 : x + 14))}px)`;
  }

  #choose(index) {
    this.#chosen = index;
    this.#draw();
  }

  #point({ clientX }) {
    const box = this.canvas.getBoundingClientRect();
    const index = Math.floor(((clientX - box.left - LEFT) / (box.width - LEFT)) * this.#bars.length);
    this.#choose(index < 0 ? null : Math.min(index, this.#bars.length - 1));
  }

  #key(event) {
    const last = this.#bars.length - 1;
    const now = this.#chosen ?? last;
    const wanted = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageDown: now - 10, PageUp: now + 10, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.#choose(null);
    if (wanted === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#choose(Math.max(0, Math.min(last, wanted)));
  }

  #list() {
    const shown = this.#series.toReversed();
    const totals = new Map(shown.map(({ name, total }) => [name, total]));
    keyed(
      this.legend,
      shown.map(({ name }) => name),
      (name) => h("li", {}, h("button", { type: "button", "data-series": name }, swatch(name), h("span", {}), h("b", {}))),
      (item, name) => {
        const [, text, number] = item.firstChild.children;
        say(text, this.#label(name));
        say(number, count(totals.get(name)));
        mark(item.firstChild, "title", this.#title(name));
        mark(item.firstChild, "aria-pressed", String(this.picked === name));
      },
    );
  }

  #chosenInLegend(event) {
    const name = event.target.closest("button")?.dataset.series;
    if (name) this.#pick(this.kind, this.picked === name ? null : name);
  }

  #highlight(name) {
    mark(this.svg, "class", name && "dimmed");
    for (const part of this.svg.querySelectorAll(".part")) part.classList.toggle("lit", part.dataset.series === name);
  }

  #table() {
    // Made anew only when a number has changed, so that it can be read and selected.
    const state = JSON.stringify([this.details.open, this.kind, this.#bars]);
    if (state === this.#told) return;
    this.#told = state;
    if (!this.details.open) return;
    const { text } = PERIODS[this.period];
    const shown = this.#series;
    const rows = this.#bars.toReversed().map((bar) => h("tr", {}, h("th", { scope: "row" }, this.#when(bar)), shown.map(({ name }) => h("td", {}, count(bar.counts[name] ?? 0)))));
    const caption = `Endings for each ${text}, by ${this.kind}`;
    this.details.lastChild.replaceChildren(
      h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, words(text)), shown.map(({ name }) => h("th", { scope: "col" }, this.#label(name))))), h("tbody", {}, rows)),
    );
  }
}
