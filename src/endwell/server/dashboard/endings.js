/** How connections ended: over time, and the last ones with their sentence. */

import { clock, date, h, mark, NONE, plural, say, swatch, who, words } from "./dom.js";
import { refreshing } from "./feed.js";
import { List } from "./list.js";
import { Plot } from "./plot.js";

/** Rows that are asked for at first, and once it is scrolled down: the maximum of the feed. */
const FEW = 200;
const ALL = 1000;
/** Seconds between two questions. */
const EVERY = 2;

const COLUMNS = [
  { name: "at", label: "Time" },
  { name: "cause", label: "Cause" },
  { name: "code", label: "Code" },
  { name: "key", label: "Peer", opens: true },
  { name: "route", label: "Route" },
  { name: "sentence", label: "What happened" },
];

function fill(cells, row) {
  say(cells.at, Date.now() / 1000 - row.at > 43200 ? date(row.at) : clock(row.at));
  const cause = row.ending.cause;
  if (cells.cause.dataset.cause !== cause) {
    cells.cause.dataset.cause = cause;
    cells.cause.replaceChildren(swatch(cause), words(cause));
  }
  say(cells.code, row.ending.code);
  say(cells.key, who(row));
  say(cells.route, row.route ?? NONE);
  say(cells.sentence, row.sentence);
}

export class Endings {
  #feed;
  #section;
  #list;
  #plot;
  #query = { search: "", cause: null, code: null };
  #rows = [];
  #total = 0;
  #seen = -1;
  #asked = 0;
  #shown = false;
  #announce = false;
  #typing = 0;

  constructor(feed, section, { open, navigate }) {
    this.#feed = feed;
    this.#section = section;
    const [search, cause, code] = ["search", "cause", "code"].map((name) => section.querySelector(`[name=${name}]`));
    this.controls = { search, cause, code };
    this.fresh = section.querySelector(".fresh");
    this.#plot = new Plot(section.querySelector(".plot"), {
      label: (name) => (this.#plot?.kind === "code" ? this.#codeText(name) : words(name)),
      title: (name) => feed.about.causes[name] ?? null,
      pick: (kind, name) => navigate({ [kind]: name, [kind === "cause" ? "code" : "cause"]: null }),
    });
    this.#list = new List(section.querySelector(".list"), { label: "The last endings", columns: COLUMNS, fill, open });
    this.#list.onrange = () => {
      // There is more than what was asked for.
      if (this.#list.sight[1] >= FEW - 20 && this.#rows.length === FEW) this.#refresh();
      mark(this.fresh, "disabled", !this.#waits());
    };
    search.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => navigate({ search: search.value.trim() }), 200);
    });
    cause.addEventListener("change", () => navigate({ cause: cause.value || null }));
    code.addEventListener("change", () => navigate({ code: code.value || null }));
    for (const radio of section.querySelectorAll("[type=radio]"))
      radio.addEventListener("change", () => {
        this.#plot[radio.name] = radio.value;
        this.#draw();
      });
    this.fresh.addEventListener("click", () => {
      this.#list.top();
      this.#refresh();
      this.#list.focus(0);
    });
    feed.addEventListener("watch", () => this.#shown && this.#refresh());
    feed.addEventListener("state", () => this.#options());
  }

  show(parameters) {
    const query = { search: parameters.get("search") ?? "", cause: parameters.get("cause"), code: parameters.get("code") };
    this.#announce = JSON.stringify(query) !== JSON.stringify(this.#query);
    this.#query = query;
    this.#shown = true;
    this.#options();
    if (this.controls.search.value.trim() !== query.search) this.controls.search.value = query.search;
    if (this.#announce) this.#list.top();
    if (this.#feed.summary) this.#draw();
    this.#refresh();
  }

  hide() {
    this.#shown = false;
  }

  /** A new summary: the plot, and if there were endings, their rows. */
  summary(summary) {
    if (!this.#shown) return;
    this.#draw();
    const total = this.#count(summary);
    mark(this.fresh, "disabled", !this.#waits());
    if (total === this.#seen || this.#waits() || performance.now() - this.#asked < EVERY * 1000) return;
    this.#refresh();
  }

  #count({ endings }) {
    return Object.values(endings.by_cause).reduce((a, b) => a + b, 0);
  }

  /** Whether there are new endings that are not shown, because others are being looked at. */
  #waits() {
    if (!this.#feed.summary || this.#count(this.#feed.summary) === this.#seen) return false;
    return this.#list.scroller.scrollTop > 0 || this.#list.held;
  }

  #draw() {
    const { cause, code } = this.#query;
    this.#plot.show(this.#feed.summary ?? { at: Date.now() / 1000, endings: { minutes: [], hours: [] } }, this.#plot.kind === "cause" ? cause : code);
  }

  #codeText(code) {
    const { codes } = this.#feed.about;
    // The address of the page may have any text as the code.
    const name = Object.hasOwn(codes, code) && codes[code];
    return name ? `${code} ${words(name)}` : code;
  }

  /** The causes and codes that can be chosen: all causes, and the codes that have occurred or have a name. */
  #options() {
    const { cause, code } = this.controls;
    const { about, summary } = this.#feed;
    const codes = new Set([...Object.keys(about.codes), ...Object.keys(summary?.endings.by_code ?? {}), ...(this.#query.code ? [this.#query.code] : [])]);
    codes.delete("other");
    const offer = (select, first, options, value) => {
      const wanted = JSON.stringify(options);
      if (select.offered !== wanted) select.replaceChildren(new Option(first, ""), ...options.map(([name, text]) => new Option(text, name)));
      select.offered = wanted;
      select.value = value ?? "";
    };
    const causes = Object.keys(about.causes);
    if (this.#query.cause && !causes.includes(this.#query.cause)) causes.push(this.#query.cause);
    offer(cause, "All causes", causes.map((name) => [name, words(name)]), this.#query.cause);
    offer(code, "All codes", [...codes].sort((a, b) => a - b).map((each) => [each, this.#codeText(each)]), this.#query.code);
  }

  #refresh = refreshing(
    () => this.#shown && this.#feed.watching && this.#load(),
    (trouble) => this.#say(trouble),
  );

  /** Ask for the last endings. Whether the query has changed. */
  async #load() {
    this.#asked = performance.now();
    const query = this.#query;
    const seen = this.#feed.summary ? this.#count(this.#feed.summary) : -1;
    const limit = this.#list.sight[1] >= FEW - 20 ? ALL : FEW;
    const code = query.code && /^\d+$/.test(query.code) ? Number(query.code) : null;
    const { rows, total } = await this.#feed.ask("endings", { ...query, code, limit });
    if (query !== this.#query) return true;
    this.#seen = seen;
    this.#rows = rows;
    this.#total = total ?? rows.length;
    this.#say(rows.length ? "" : query.search || query.cause || query.code ? "No ending matches." : "No connection has ended yet.");
    this.#list.show(rows.length, (index) => this.#rows[index]);
    return false;
  }

  #say(trouble) {
    say(this.#list.empty, trouble);
    const filtered = this.#query.search || this.#query.cause || this.#query.code;
    const text = filtered ? `${plural(this.#total, "ending")} found` : plural(this.#total, "ending");
    const [seen, told] = this.#section.querySelector(".count").children;
    say(seen, text);
    if (this.#announce && filtered) say(told, trouble || text);
    this.#announce = false;
  }
}
