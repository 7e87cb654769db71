/** The connections now: a list that the server sorts and searches, of which this page has the pages it has seen. */

import { age, bytes, count, latency, mark, NONE, plural, say, who } from "./dom.js";
import { refreshing } from "./feed.js";
import { List } from "./list.js";

/** Rows of one answer, the maximum of the feed. */
const PAGE = 200;
/** Seconds between two questions while nothing else happens. */
const EVERY = 2;
/** Maximum number of rows of which it is asked whether they have ended, while the order is held. */
const CHECKS = 20;

/** `first`: whether the first click on the header sorts in descending order. */
const COLUMNS = [
  { name: "key", label: "Peer", opens: true, sort: "key", title: "Sort by key" },
  { name: "address", label: "Address", sort: "address" },
  { name: "route", label: "Route", sort: "route" },
  { name: "age", number: true, label: "Age", sort: "age" },
  { name: "latency", number: true, label: "Round trip", sort: "latency", first: true, title: "Time from a ping to its pong" },
  { name: "queued", number: true, label: "Queued", sort: "queued", first: true, title: "Bytes that wait for the peer" },
  { name: "messages_in", number: true, label: "Msgs in", sort: "messages_in", first: true, title: "Messages received" },
  { name: "messages_out", number: true, label: "Msgs out", sort: "messages_out", first: true, title: "Messages sent" },
  { name: "bytes_in", number: true, label: "Bytes in", sort: "bytes_in", first: true, title: "Bytes received" },
  { name: "bytes_out", number: true, label: "Bytes out", sort: "bytes_out", first: true, title: "Bytes sent" },
  { name: "state", label: "State" },
  { name: "worker", label: "Worker" },
  { name: "rooms", label: "Rooms" },
];
const ORDERS = [
  ["age", false, "Newest first"],
  ["age", true, "Oldest first"],
  ["latency", true, "Longest round trip"],
  ["queued", true, "Most bytes queued"],
  ["bytes_in", true, "Most bytes in"],
  ["bytes_out", true, "Most bytes out"],
  ["messages_in", true, "Most messages in"],
  ["messages_out", true, "Most messages out"],
  ["idle", true, "Longest idle"],
  ["key", false, "Key"],
  ["address", false, "Address"],
  ["route", false, "Route"],
];

function fill(cells, row, element) {
  say(cells.key, who(row));
  say(cells.address, row.address);
  say(cells.route, row.path ?? row.route);
  say(cells.age, age(row.age));
  say(cells.latency, latency(row.latency));
  say(cells.queued, row.queued ? bytes(row.queued) : NONE);
  for (const name of ["messages_in", "messages_out"]) say(cells[name], count(row[name]));
  for (const name of ["bytes_in", "bytes_out"]) say(cells[name], bytes(row[name]));
  say(cells.state, row.gone ? "ended" : row.slow ? "slow" : row.state);
  mark(cells.state, "data-state", row.gone ? "ended" : row.slow ? "slow" : row.state);
  say(cells.worker, row.worker);
  say(cells.rooms, row.rooms?.length ? row.rooms.join(", ") : NONE);
  element.classList.toggle("gone", !!row.gone);
}

export class Connections {
  #feed;
  #section;
  #list;
  #query = { search: "", slow: false, sort: "age", descending: false };
  /** The pages of the list so far: with which cursor each is asked for, and its rows. The last one may be unknown. */
  #pages = [{ cursor: null, rows: [] }];
  /** The rows of all these pages. */
  #rows = [];
  #total = 0;
  #shown = false;
  #timer = 0;
  /** Counts the queries, so that a late answer to an earlier one is ignored. */
  #version = 0;
  #typing = 0;

  /** `navigate(fields)` puts the query into the address of the page. */
  constructor(feed, section, { open, navigate }) {
    this.#feed = feed;
    this.#section = section;
    const [search, slow, order] = ["search", "slow", "sort"].map((name) => section.querySelector(`[name=${name}]`));
    for (const [index, [, , text]] of ORDERS.entries()) order.append(new Option(text, index));
    this.#list = new List(section.querySelector(".list"), {
      label: "Connections",
      columns: COLUMNS,
      fill,
      open: (row) => open(row.connection),
      sort: ({ sort, first = false }) => navigate({ sort, descending: this.#query.sort === sort ? !this.#query.descending : first }),
    });
    this.#list.onrange = () => this.#missing() && this.#refresh();
    search.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => navigate({ search: search.value.trim() }), 200);
    });
    slow.addEventListener("change", () => navigate({ slow: slow.checked }));
    order.addEventListener("change", () => navigate({ sort: ORDERS[order.value][0], descending: ORDERS[order.value][1] }));
    this.controls = { search, slow, order };
    feed.addEventListener("watch", () => this.#refresh());
  }

  /** Show the view, with the query of the address. */
  show(parameters) {
    const sort = ORDERS.some(([name]) => name === parameters.get("sort")) ? parameters.get("sort") : "age";
    const query = {
      search: parameters.get("search") ?? "",
      slow: parameters.get("slow") === "true",
      sort,
      descending: parameters.get("descending") === "true",
    };
    const { search, slow, order } = this.controls;
    if (search.value.trim() !== query.search) search.value = query.search;
    slow.checked = query.slow;
    order.value = ORDERS.findIndex(([name, descending]) => name === sort && descending === query.descending);
    for (const [index, { sort: name }] of COLUMNS.entries())
      if (name) mark(this.#list.heads[index], "aria-sort", name !== sort ? "none" : query.descending ? "descending" : "ascending");
    const changed = JSON.stringify(query) !== JSON.stringify(this.#query);
    this.#query = query;
    this.#shown = true;
    if (changed) this.#reset();
    this.#refresh();
  }

  hide() {
    this.#shown = false;
    clearTimeout(this.#timer);
  }

  #reset() {
    this.#version++;
    this.#pages = [{ cursor: null, rows: [] }];
    this.#rows = [];
    this.#list.top();
    this.announce = true;
  }

  /** The numbers of the pages in sight; of those that are not known, that of the next one. */
  #seen() {
    const [first, end] = this.#list.sight;
    let from = -1;
    let start = 0;
    for (const [index, { rows }] of this.#pages.entries()) {
      start += rows.length;
      if (from < 0 && first < start) from = index;
      if (end <= start) return [from < 0 ? index : from, index];
    }
    const last = this.#pages.length - 1;
    return [from < 0 ? last : from, last];
  }

  /** Whether a row in sight has not been asked for. */
  #missing() {
    return this.#list.sight[1] > this.#rows.length;
  }

  #refresh = refreshing(
    async () => {
      try {
        return this.#active && (await this.#load());
      } finally {
        clearTimeout(this.#timer);
        if (this.#active) this.#timer = setTimeout(() => this.#refresh(), EVERY * 1000);
      }
    },
    (trouble) => this.#say(trouble),
  );

  get #active() {
    return this.#shown && this.#feed.watching;
  }

  /** Ask for the pages in sight, and for those before them whose cursors are needed. Whether the query has changed. */
  async #load() {
    const version = this.#version;
    for (let page = this.#seen()[0]; ; page++) {
      const answer = await this.#feed.ask("list", { ...this.#query, after: this.#pages[page].cursor, limit: PAGE });
      if (version !== this.#version) return true;
      await this.#take(page, answer);
      const [from, to] = this.#seen();
      // It may have been scrolled meanwhile.
      page = Math.max(page, from - 1);
      if (answer.after === null || page >= to) return false;
    }
  }

  async #take(page, { rows, total, after }) {
    const { rows: old } = this.#pages[page];
    this.#pages[page].rows = this.#list.held && old.length ? await this.#held(page, rows) : rows;
    // Where this page ends, the next one begins.
    if (after === null) this.#pages.length = page + 1;
    else if (this.#pages[page + 1]) this.#pages[page + 1].cursor = after;
    else this.#pages.push({ cursor: after, rows: [] });
    this.#rows = this.#pages.flatMap(({ rows }) => rows);
    this.#total = total;
    this.#say(total ? "" : this.#query.search || this.#query.slow ? "No connection matches." : "No connection is open.");
    // The total may be that of a moment ago; rows that have ended are left out.
    this.#list.show(after === null ? this.#rows.length : Math.max(total, this.#rows.length), (index) => this.#rows[index]);
  }

  /** The rows that a page has, in their order, with new values. Those that have ended stay, and say so. */
  async #held(page, rows) {
    const fresh = new Map(rows.map((row) => [row.connection, row]));
    const start = this.#pages.slice(0, page).reduce((sum, { rows }) => sum + rows.length, 0);
    const [first, end] = this.#list.sight;
    let checks = CHECKS;
    const held = [];
    for (const [index, row] of this.#pages[page].rows.entries()) {
      const seen = start + index >= first && start + index < end;
      if (fresh.has(row.connection)) held.push(fresh.get(row.connection));
      else if (row.gone || !seen || checks-- <= 0) held.push(row);
      else {
        const answer = await this.#feed.ask("connection", { connection: row.connection }).catch(() => null);
        held.push(answer?.connection ?? { ...row, gone: true });
      }
    }
    return held;
  }

  #say(trouble) {
    const { search, slow } = this.#query;
    say(this.#list.empty, trouble);
    const text = search || slow ? `${plural(this.#total, "connection")} found` : plural(this.#total, "connection");
    const [seen, told] = this.#section.querySelector(".count").children;
    say(seen, text);
    // Told once for each search, and not each second.
    if (this.announce && (search || slow)) say(told, trouble || text);
    this.announce = false;
  }
}
