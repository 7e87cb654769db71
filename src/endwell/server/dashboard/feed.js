/** The feed: questions and answers over one connection that comes back, and a summary each second. */

import { ReconnectingWebSocket } from "./endwell.js";

/** Seconds between two summaries. */
const EVERY = 1;
/** Seconds until a question without an answer has failed. The server waits 2 s for its workers. */
const PATIENCE = 15;

/** What the server has answered, or why there is no answer: a sentence for people. */
export class Refused extends Error {}

/** There is no connection: the page says so at its top. */
export class Lost extends Refused {}

/**
 * A function that calls `load`, one call at a time: if it is called meanwhile, `load` is called once more, and so it is
 * if `load` returns true. `failed(text)` is told why there is no answer.
 */
export function refreshing(load, failed) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      try {
        if (await load()) again = true;
      } catch (error) {
        if (!(error instanceof Lost)) failed(error.message);
      }
    }
    running = false;
  };
}

/** Its events are "state"; "summary", with the summary as `detail`; and "watch", when `watching` changes. */
export class Feed extends EventTarget {
  /** What does not change while the server runs: causes, codes, actions. */
  about = { version: "", host: "", causes: {}, codes: {}, phases: {}, actions: [] };
  summary = null;
  paused = false;
  #waiting = new Map();
  #last = 0;
  #watching = false;
  #ready = false;
  #ws;

  constructor(url) {
    super();
    this.#url = url;
    this.connect();
    document.addEventListener("visibilitychange", () => this.#watch());
  }

  #url;

  connect() {
    // This page is made for looking at restarts: it may come back sooner than the pages of users.
    const ws = (this.#ws = new ReconnectingWebSocket(this.#url, { protocols: "endwell.feed.1", base: 1, maxDelay: 10 }));
    ws.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    ws.onending = () => {
      this.#ready = false;
      for (const { reject } of this.#waiting.values()) reject(new Lost("The connection to the server was lost."));
      this.#waiting.clear();
      this.#watch();
    };
    ws.onopen = async () => {
      try {
        this.about = await this.ask("about");
      } catch {
        // Lost again; otherwise the server is another version, and the page works without it.
        if (ws.readyState !== 1) return;
      }
      this.#ready = true;
      this.dispatchEvent(new Event("state"));
      this.#watch();
    };
    ws.onstate = () => this.dispatchEvent(new Event("state"));
  }

  get state() {
    return this.#ws.state;
  }

  /** Whether the feed is open and the page wants news: it is visible and not paused. */
  get watching() {
    return this.#watching;
  }

  pause(paused) {
    this.paused = paused;
    this.#watch();
  }

  /** The answer to a question. Rejects with Refused: with the error of the server, or if no answer came. */
  ask(name, fields = {}) {
    if (this.#ws.readyState !== 1) return Promise.reject(new Lost("The page is not connected to the server."));
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Refused("The server has not answered."));
      }, PATIENCE * 1000);
      const done = (way) => (value) => {
        clearTimeout(timer);
        way(value);
      };
      this.#waiting.set(id, { resolve: done(resolve), reject: done(reject) });
      this.#ws.send(JSON.stringify({ ask: name, id, ...fields }));
    });
  }

  #receive(message) {
    if (message.summary) {
      this.summary = message.summary;
      if (this.#watching) this.dispatchEvent(new CustomEvent("summary", { detail: message.summary }));
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error !== undefined) waiting?.reject(new Refused(message.error));
    else waiting?.resolve(message);
  }

  #watch() {
    const watching = this.#ready && !this.paused && !document.hidden;
    if (watching === this.#watching) return;
    this.#watching = watching;
    // Without a summary and without questions, the server computes nothing for this page.
    if (this.#ready) this.ask("summary", { every: watching ? EVERY : 0 }).catch(() => {});
    this.dispatchEvent(new Event("watch"));
  }
}
