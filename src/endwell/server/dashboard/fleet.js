/** The numbers above all views, the rooms with the bus, and the workers. */

import { age, bytes, count, h, keyed, mark, NONE, plural, rate, s, say, words } from "./dom.js";

/** Seconds of a small curve. */
const HISTORY = 60;

/** Rates: counters are totals since the start, and a worker that has been replaced begins at 0 again. */
class Rates {
  #before = new Map();

  /** The rate of each counter of a worker since the previous summary; null at first. */
  of(worker, at) {
    const before = this.#before.get(worker.worker);
    this.#before.set(worker.worker, { ...worker, at });
    if (!before || at <= before.at) return null;
    const per = (name) => Math.max(0, worker[name] - before[name]) / (at - before.at);
    return { messages_in: per("messages_in"), messages_out: per("messages_out"), bytes_in: per("bytes_in"), bytes_out: per("bytes_out") };
  }
}

/** A curve of the last values, without axes: it shows a tendency, the number beside it says the value. */
class Curve {
  #values = [];
  element = s("svg", { class: "curve", preserveAspectRatio: "none", "aria-hidden": "true" }, s("path", { class: "area" }), s("path", { class: "line" }));

  add(value) {
    if (value == null) return;
    this.#values.push(value);
    if (this.#values.length > HISTORY) this.#values.shift();
    const top = Math.max(...this.#values) * 1.1 || 1;
    const width = Math.max(1, this.#values.length - 1);
    this.element.setAttribute("viewBox", `0 0 ${width} 20`);
    const points = this.#values.map((each, index) => `${index},${(19 - (18 * each) / top).toFixed(2)}`);
    const [area, line] = this.element.children;
    line.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M0,20L${points.join("L")}L${width},20Z`);
  }
}

/** A bar with its name and number: `share` is between 0 and 1. */
function bars(list, rows) {
  const top = Math.max(1, ...rows.map(([, value]) => value));
  const values = new Map(rows.map(([name, value]) => [String(name), value]));
  keyed(
    list,
    [...values.keys()],
    () => h("li", {}, h("span", {}), h("b", {}), h("i", { "aria-hidden": "true" })),
    (item, name) => {
      const [text, number, bar] = item.children;
      say(text, name);
      say(number, count(values.get(name)));
      bar.style.transform = `scaleX(${values.get(name) / top})`;
    },
  );
}

export class Fleet {
  #rates = new Rates();
  #tiles = {};
  #feed;
  #dialogs;
  #workers;

  constructor(feed, dialogs) {
    this.#feed = feed;
    this.#dialogs = dialogs;
    const tiles = document.getElementById("tiles");
    for (const [name, label, curve] of [
      ["connections", "Connections", true],
      ["in", "Messages in / s", true],
      ["out", "Messages out / s", true],
      ["endings", "Endings, 1 h", false],
      ["workers", "Workers", false],
    ]) {
      const tile = (this.#tiles[name] = { value: h("b", {}, NONE), note: h("small", {}), curve: curve && new Curve() });
      tiles.append(h("div", { class: name }, h("dt", {}, label), h("dd", {}, tile.value, tile.note), tile.curve && tile.curve.element));
    }
    const rooms = document.querySelector("#rooms-view .cards");
    this.rooms = h("ol", { class: "bars" });
    this.routes = h("ol", { class: "bars" });
    this.bus = h("dl", { class: "facts" });
    this.counted = h("p", { class: "soft" });
    this.busState = h("p", { class: "badge" });
    rooms.append(
      h("section", { class: "card" }, h("h3", {}, "The largest rooms"), this.counted, this.rooms),
      h("div", {}, h("section", { class: "card" }, h("h3", {}, "The bus"), this.busState, this.bus), h("section", { class: "card" }, h("h3", {}, "Connections by route"), this.routes)),
    );
    const workers = document.getElementById("workers-view");
    this.#workers = workers.querySelector(".cards");
    this.restart = workers.querySelector(".restart");
    this.missing = workers.querySelector(".missing");
    this.restart.addEventListener("click", () => dialogs.restart(feed.summary?.workers.length ?? 0));
    feed.addEventListener("state", () => this.#actions());
  }

  #actions() {
    const { actions } = this.#feed.about;
    this.restart.hidden = !actions.includes("restart");
    for (const button of this.#workers.querySelectorAll(".drain")) button.hidden = !actions.includes("drain");
  }

  summary(summary) {
    const rates = new Map(summary.workers.map((worker) => [worker.worker, this.#rates.of(worker, summary.at)]));
    const known = [...rates.values()].filter(Boolean);
    const sum = (name) => (known.length ? known.reduce((total, each) => total + each[name], 0) : null);
    const slow = summary.workers.reduce((total, { slow }) => total + (slow ?? 0), 0);
    this.#tile("connections", count(summary.connections), slow ? `${count(slow)} slow` : "none slow", summary.connections);
    this.#tile("in", rate(sum("messages_in")), `${bytes(sum("bytes_in"))}/s`, sum("messages_in"));
    this.#tile("out", rate(sum("messages_out")), `${bytes(sum("bytes_out"))}/s`, sum("messages_out"));
    const since = Math.floor(summary.at / 60) - 59;
    const total = (causes) => Object.values(causes).reduce((a, b) => a + b, 0);
    const minutes = summary.endings.minutes.filter(([time]) => time >= since);
    const last = minutes.find(([time]) => time === since + 59);
    this.#tile("endings", count(minutes.reduce((all, [, causes]) => all + total(causes), 0)), `${count(last ? total(last[1]) : 0)} this min`);
    const draining = summary.workers.filter(({ state }) => state === "draining").length;
    const missing = summary.missing_workers;
    this.#tile("workers", count(summary.workers.length + missing), missing ? `${count(missing)} did not answer` : draining ? `${count(draining)} draining` : "all serving");
    this.#tiles.workers.note.classList.toggle("warn", !!missing);
    this.#tiles.connections.note.classList.toggle("warn", !!slow);
    this.#roomsAndBus(summary);
    this.#cards(summary, rates);
  }

  #tile(name, value, note, point) {
    const tile = this.#tiles[name];
    say(tile.value, value);
    say(tile.note, note);
    if (tile.curve) tile.curve.add(point);
  }

  #roomsAndBus({ rooms, bus, by_route: routes }) {
    say(this.counted, rooms.count ? `${plural(rooms.count, "room")}${rooms.count > rooms.largest.length ? `, the largest ${rooms.largest.length} of them here` : ""}` : "No connection is in a room.");
    bars(this.rooms, rooms.largest);
    bars(this.routes, Object.entries(routes).sort((a, b) => b[1] - a[1]));
    const none = !bus || bus.kind === "local";
    const state = none ? "none" : bus.connected ? "ok" : "bad";
    mark(this.busState, "data-state", state);
    say(this.busState, { none: "No bus: rooms are in this process only", ok: "connected", bad: "not connected" }[state]);
    keyed(
      this.bus,
      none ? [] : ["Kind", "Connection lost", "Publications missed"],
      (name) => h("div", {}, h("dt", {}, name), h("dd", {})),
      (item, name) => say(item.lastChild, { Kind: bus.kind, "Connection lost": plural(bus.disconnections, "time"), "Publications missed": count(bus.lost_publications) }[name]),
    );
  }

  #cards({ workers, missing_workers: missing }, rates) {
    say(this.missing, missing ? `${plural(missing, "worker")} did not answer within 2 s; the numbers are without ${missing === 1 ? "it" : "them"}.` : "");
    const byName = new Map(workers.map((worker) => [worker.worker, worker]));
    keyed(
      this.#workers,
      [...byName.keys()],
      (name) => this.#card(() => this.#feed.summary?.workers.find(({ worker }) => worker === name)),
      (card, name) => this.#fill(card, byName.get(name), rates.get(name)),
    );
  }

  #card(current) {
    const parts = {
      name: h("h3", {}),
      place: h("p", { class: "soft" }),
      badge: h("p", { class: "badge" }),
      facts: h("dl", { class: "facts" }),
      drain: h("div", { class: "progress", hidden: true }),
      act: h("button", { type: "button", class: "drain", hidden: !this.#feed.about.actions.includes("drain"), click: () => current() && this.#dialogs.drain(current()) }, "Drain …"),
    };
    parts.text = h("p", {});
    parts.bar = h("progress", { max: 1, "aria-label": "Connections that have ended" });
    parts.track = h("div", { class: "track", "aria-hidden": "true" });
    parts.steps = h("ol", { class: "steps", "aria-label": "Timetable of the drain" });
    parts.drain.append(parts.text, parts.bar, parts.track, parts.steps);
    const card = h("section", { class: "card worker" }, h("header", {}, parts.name, parts.place, parts.badge), parts.facts, parts.drain, h("footer", {}, parts.act));
    card.parts = parts;
    return card;
  }

  #fill({ parts }, worker, rates) {
    const { drain } = worker;
    say(parts.name, `Worker ${worker.worker}`);
    say(parts.place, `process ${worker.pid} on ${worker.host}, for ${age(worker.uptime)}`);
    say(parts.badge, worker.state);
    mark(parts.badge, "data-state", worker.state === "serving" ? "ok" : "busy");
    mark(parts.act, "aria-disabled", worker.state === "serving" ? null : "true");
    const shown = {
      Connections: count(worker.connections),
      Open: count(worker.open),
      Closing: count(worker.closing + (worker.lingering ?? 0)),
      Slow: count(worker.slow),
      "Messages in": `${rate(rates?.messages_in)}/s`,
      "Messages out": `${rate(rates?.messages_out)}/s`,
      "Bytes in": `${bytes(rates?.bytes_in)}/s`,
      "Bytes out": `${bytes(rates?.bytes_out)}/s`,
      Memory: bytes(worker.memory),
      Stalled: worker.stalled_seconds == null ? NONE : `${worker.stalled_seconds.toFixed(1)} s`,
    };
    keyed(
      parts.facts,
      Object.keys(shown),
      (name) => h("div", {}, h("dt", {}, name), h("dd", {})),
      (item, name) => say(item.lastChild, shown[name]),
    );
    parts.drain.hidden = !drain;
    if (drain) this.#timetable(parts, drain);
  }

  #timetable(parts, { phase, seconds_left: left, open, ended, deadline, timetable }) {
    say(parts.text, `${plural(ended, "connection")} ended, ${count(open)} open, at most ${Math.ceil(left)} s left`);
    parts.bar.value = open + ended ? ended / (open + ended) : 1;
    const phases = Object.entries(timetable);
    const names = phases.map(([name]) => name);
    const elapsed = phases.at(-1)[1] - left;
    keyed(
      parts.track,
      names,
      () => h("i", {}),
      (part, name) => {
        const until = phases[names.indexOf(name) + 1]?.[1] ?? deadline;
        part.style.flexGrow = Math.max(0, until - timetable[name]);
        part.classList.toggle("past", elapsed >= until);
        part.classList.toggle("now", name === phase);
      },
    );
    keyed(
      parts.steps,
      names,
      () => h("li", {}, h("b", {}), h("span", {})),
      (item, name) => {
        say(item.firstChild, `${+timetable[name].toFixed(1)} s`);
        say(item.lastChild, this.#feed.about.phases[name] ?? words(name));
        mark(item, "aria-current", name === phase ? "step" : null);
      },
    );
  }
}
