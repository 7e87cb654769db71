/**
 * A WebSocket for web pages that reconnects like endwell's Python client and reports how each connection
 * ended. All times are in seconds. Documentation: docs/howto/browser.md in endwell's repository.
 */

// Made by tools/browser_constants.py: change what it reads, then run `make docs`.
/** @type {Options} */
const DEFAULTS = {
  protocols: [],
  base: 5,
  maxDelay: 60,
  stableAfter: 10,
  maxAdvised: 3600,
  maxRetries: Infinity,
  maxTime: Infinity,
  pingInterval: 20,
  pingTimeout: 20,
  staleAfter: Infinity,
  openTimeout: 10,
  closeTimeout: 10,
  codes: {},
  maxQueue: 100,
  whenFull: "refuse",
};
// What each of these may be, beside positive whole numbers: 1: 0, 2: Infinity, 4: a fraction; 0: no number.
const KINDS = "044443676764030";
/** @type {Record<number, Retry>} */
const CODES = { 1001: "now", 1005: "later", 1006: "now", 1011: "later", 1012: "now", 1013: "later", 1014: "later", 1015: "later", 3000: "never", 3003: "never", 4990: "now", 4991: "never" };
/** @type {(code: number) => Retry} */
const retryOf = (code) => CODES[code] ?? ((code >= 3000 && code <= 3999) || (code >= 4000 && code <= 4999) ? "later" : "never");
const CLEAN = [1000, 1001, 1005, 1012, 4990, 4991];
const OVERRIDABLE = /^(100[012356789]|101[01234]|[34]\d{3}),(never|now|later)$/;
const CAUSES = /** @type {const} */ ({ app_closed: ["local", "never"], keepalive_timeout: ["local", "now"], idle_timeout: ["local", "now"], peer_vanished: ["network", "now"], handshake_failed: ["local", "later"] });
const PAGE_LEFT = 4990;
const TIMEOUT = 3008;
const QUERY = "endwell=heartbeat";
const QUESTION = "\u0005";
const ANSWER = "\u0006";
const MARK = "endwell.bearer";
const PREFIX = "bearer.";
const RENEWAL = "\u001abearer ";
const SHARE = 0.8;
// End of what is made.

/** @typedef {"never" | "now" | "later"} Retry whether to reconnect: never, immediately, or after a back-off */
/** @typedef {"done" | "refused" | "retries" | "time"} Stop why there is no further attempt */
/** @typedef {"peer_closed" | keyof typeof CAUSES} Cause why a connection ended */
/** @typedef {{code: number | null, reason: string}} Close a Close frame; null for a Close without a code */
/** @typedef {Parameters<WebSocket["send"]>[0]} Data a message */
/** @typedef {{value: string, until?: Date | number}} Token `until`: when it expires, a Date or ms since 1970 */
/** @typedef {string | URL} Address a URL, relative to the page or to the worker's script */
/** @typedef {Address | (() => Address | PromiseLike<Address>)} Source an address, or a function that returns one or a promise of one */

/**
 * Where the client stands, for a user interface: the fields of endwell.ClientState.
 * @typedef {object} State
 * @property {"connecting" | "open" | "waiting" | "stopped"} phase
 * @property {number | null} until waiting: time of the next attempt, in seconds since 1970; null while the browser keeps the page out of sight
 * @property {Stop | null} reason stopped: why there is no further attempt
 * @property {Ending | null} last how the previous connection or attempt ended
 */

/**
 * How a connection ended: the fields of endwell.Ending that a page can know.
 * @typedef {object} Ending
 * @property {Cause} cause
 * @property {"peer" | "local" | "network"} initiator
 * @property {boolean} clean whether the closing handshake was completed
 * @property {Close | null} received the server's Close
 * @property {Close | null} sent the Close that this side sent
 * @property {number} code the code of the first Close; 1005 for a Close without a code, 1006 without a Close
 * @property {string} reason
 * @property {boolean} ok whether it was an ordinary ending
 * @property {number} opened_at wall-clock time, in seconds since 1970
 * @property {number} duration seconds
 * @property {number} messages_in
 * @property {number} messages_out
 * @property {number} unsent_bytes bytes that the browser had not sent
 * @property {number | null} latency round-trip time of the last heartbeat, in seconds
 */

/**
 * @typedef {object} Options the policy of endwell.RetryPolicy, and the limits of endwell.Options
 * @property {string | string[]} protocols subprotocols, as for WebSocket
 * @property {() => string | Token | PromiseLike<string | Token>} [token] called for each connection: a bearer token to send
 * @property {number} base seconds: scale of the back-off, and minimum wait, except for the first "now"
 * @property {number} maxDelay seconds: maximum of the back-off
 * @property {number} stableAfter seconds: a connection that lasts this long resets the count of attempts
 * @property {number} maxAdvised seconds: maximum wait that a server can request; longer ones are cut to it
 * @property {number} maxRetries maximum attempts in a row, a whole number; 0: none, Infinity: no limit
 * @property {number} maxTime seconds: maximum duration of the attempts in a row; Infinity: no limit
 * @property {Record<number, Retry>} codes your decision for close codes; 1006: a connection ended without a Close
 * @property {number} pingInterval seconds without a message until a heartbeat is sent; 0: no heartbeat, Infinity: only when the page comes back
 * @property {number} pingTimeout seconds without an answer to a heartbeat until the connection is closed; Infinity: no limit
 * @property {number} staleAfter seconds without a message until the connection is closed, and replaced by another one; 0 or Infinity: no limit
 * @property {number} openTimeout seconds: maximum duration of the opening handshake; Infinity: no limit
 * @property {number} closeTimeout seconds: maximum duration of the closing handshake
 * @property {number} maxQueue maximum number of messages that wait for the next connection, a whole number; 0: none, Infinity: no limit
 * @property {"refuse" | "drop"} whenFull with a full queue, send() returns false, or the oldest message is dropped
 */

/** @typedef {{tries: number, since: number}} History number of endings in a row, and time of the first one */
/** @typedef {Event & {ending: Ending, wait: number | null, stop: Stop | null, error: unknown}} EndingEvent */
/** @typedef {Event & {state: State}} StateEvent */
/** @typedef {{open: Event, message: MessageEvent, ending: EndingEvent, state: StateEvent}} EventMap */
/**
 * EventTarget with the types of these events, as TypeScript declares them for WebSocket.
 * @typedef {object} Typed
 * @property {<K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void, options?: boolean | AddEventListenerOptions) => void} addEventListener
 * @property {<K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void, options?: boolean | EventListenerOptions) => void} removeEventListener
 */

/**
 * When to reconnect. The result is the same as that of RetryPolicy.decide.
 * @param {Options} policy
 * @param {History} history including `ending`
 * @param {Ending} ending
 * @param {number} now
 * @param {number} jitter random number in [0, 1)
 * @returns {number | Stop} seconds to wait, or why there is no further attempt
 */
export function decide(policy, history, { cause, code, reason, ok }, now, jitter) {
  const { base, maxAdvised } = policy;
  const theirs = cause === "peer_closed";
  const ours = cause === "app_closed";
  // An opening handshake that failed, or that close() has ended, has the code 1006, too, but `codes` only applies to
  // connections that were open.
  const own = code === 1006 ? !ours && cause !== "handshake_failed" : theirs || ours;
  const retry = (own && policy.codes[code]) || (theirs ? retryOf(code) : CAUSES[cause][1]);
  if (retry === "never") return ok || ours ? "done" : "refused";
  if (history.tries > policy.maxRetries) return "retries";
  const first = history.tries === 1;
  let floor = first && retry === "now" ? 0 : base;
  let spread = Math.min(policy.maxDelay, base * 2 ** (history.tries - 1));
  const [, from, to] = (theirs && /(?:^|; )retry ([0-9]{1,5})-([0-9]{1,5})s$/.exec(reason)) || [];
  if (+from <= +to) {
    const earliest = Math.min(+from, maxAdvised);
    const width = Math.min(+to, maxAdvised + base) - earliest;
    floor = first ? earliest : Math.max(floor, earliest);
    spread = first ? width : Math.max(spread, width);
  }
  const wait = floor + jitter * spread;
  return now + wait - history.since > policy.maxTime ? "time" : wait;
}

const clock = () => performance.now() / 1000;

// A timer takes at most 2 ** 31 ms, and would run at once after more.
/** @type {(callback: () => void, seconds: number) => number} */
const after = (callback, seconds) => setTimeout(callback, Math.min(seconds, 2e6) * 1000);

/** @type {(callback: (late: boolean) => void, seconds: number) => number} `late`: whether the timer ran late */
const afterOrLate = (callback, seconds) => {
  const due = Date.now() + seconds * 1000;
  return after(() => callback(Date.now() - due > 2000), seconds);
};

// In a worker, `document` is undefined; in Node.js, all of these are.
const { document, location, navigator, addEventListener } = globalThis;

/** Whether the page is hidden or the browser offline: then attempts are less urgent. */
const idle = () => document?.hidden || navigator?.onLine === false;

// Seconds after Firefox's Close at which the page is assumed to stay, for example after a download. If the next
// page takes longer to answer, this page has reconnected by then.
const LEAVE_DELAY = 5;

/**
 * A WebSocket that reconnects. Its events are "open", once for each connection; "message"; "ending",
 * once for each connection and failed attempt; and "state", for each new `state`, before "open" and "ending". An EndingEvent has the `ending`, and either `wait`, the
 * seconds until the next attempt, or `stop`, the reason why there is none. Both are null if the browser
 * keeps the page in its back/forward cache; the next attempt follows when the page is shown again. `error`
 * is the exception of the url or token function, if that caused the ending.
 */
export class ReconnectingWebSocket extends /** @type {new () => Typed & EventTarget} */ (EventTarget) {
  /** @readonly */ static CONNECTING = /** @type {const} */ (0);
  /** @readonly */ static OPEN = /** @type {const} */ (1);
  /** @readonly */ static CLOSING = /** @type {const} */ (2);
  /** @readonly */ static CLOSED = /** @type {const} */ (3);
  /** @readonly */ CONNECTING = /** @type {const} */ (0);
  /** @readonly */ OPEN = /** @type {const} */ (1);
  /** @readonly */ CLOSING = /** @type {const} */ (2);
  /** @readonly */ CLOSED = /** @type {const} */ (3);

  /** @type {Ending | null} the ending of the previous connection */
  ending = null;
  /** @type {State} a new object for each change */
  state = { phase: "connecting", until: null, reason: null, last: null };
  /** @type {BinaryType} applies to the next connection */
  binaryType = "blob";
  /** @type {((event: Event) => void) | null} */
  onopen = null;
  /** @type {((event: MessageEvent) => void) | null} */
  onmessage = null;
  /** @type {((event: EndingEvent) => void) | null} */
  onending = null;
  /** @type {((event: StateEvent) => void) | null} */
  onstate = null;

  /** @type {Source[]} */
  #sources;
  /** The number of the current source; counts on after the last one. */
  #turn = 0;
  #address = "";
  /** @type {Options} */
  #options;
  /** @type {WebSocket | null} */
  #ws = null;
  #opened = false;
  /** @type {Close | null} the Close that was sent */
  #closeSent = null;
  #stopped = false;
  /** Whether the page is in the back/forward cache, or frozen. */
  #inCache = false;
  /** Whether the browser may be about to leave the page. */
  #leaving = false;
  /** @type {Data[]} */
  #queue = [];
  #pageListeners = new AbortController();
  /** For the opening handshake, the closing handshake, and the wait between connections. */
  #timer = 0;

  /** @type {History} */
  #history = { tries: 0, since: 0 };
  // The time of the next attempt: at the earliest; normally; and while the page is hidden or offline.
  #earliest = 0;
  #nextAttempt = 0;
  #nextIdleAttempt = 0;

  #started = 0;
  #staleTimer = 0;
  /** When the last message arrived, or the connection opened. */
  #lastMessage = 0;
  #messagesIn = 0;
  #messagesOut = 0;
  /** @type {number | null} */
  #latency = null;

  #heartbeatOn = false;
  #heartbeatTimer = 0;
  #lastReceived = 0;
  #heartbeatSent = 0;
  #unanswered = 0;
  #bufferedBefore = 0;

  /** @type {Token | undefined} the token of the current connection */
  #token;
  #renewalTimer = 0;

  /**
   * Connects immediately. Throws what WebSocket's constructor throws, RangeError for `codes` that no ending can
   * have, TypeError for an option that must be a number and is none, and RangeError for a number that it cannot
   * be: negative, NaN, 0 or Infinity where the option does not name them, or a fraction where it must be a whole
   * number. An undefined option has its default.
   * @param {Source | Source[]} url an address, or a function that returns one or a promise of one; it is
   * called for each connection, and an exception is a failed handshake. Of a list, each attempt after a
   * failure or a short connection takes the next item, and the first one follows a stable connection
   * @param {Partial<Options>} options
   */
  constructor(url, options = {}) {
    super();
    this.#sources = [url].flat();
    /** @type {any} */
    const given = (this.#options = { ...DEFAULTS, ...options });
    Object.entries(DEFAULTS).forEach(([name, preset], at) => {
      const value = (given[name] ??= preset);
      if (!+KINDS[at]) return;
      if (typeof value !== "number") throw new TypeError(`${name} must be a number`);
      const needed = !value ? 1 : value === Infinity ? 2 : value % 1 ? 4 : 0;
      if (!(value >= 0) || needed & ~KINDS[at]) throw new RangeError(`${name} cannot be ${value}`);
    });
    // The next connection has a new token, so 3000 (unauthorized) is not final.
    if (options.token) this.#options.codes = { 3000: "later", ...options.codes };
    for (const row of Object.entries(this.#options.codes))
      if (!OVERRIDABLE.test(`${row}`)) throw new RangeError(`codes cannot have ${row}`);
    this.addEventListener("open", (event) => this.onopen?.(event));
    this.addEventListener("message", (event) => this.onmessage?.(event));
    this.addEventListener("ending", (event) => this.onending?.(event));
    this.addEventListener("state", (event) => this.onstate?.(event));
    this.#connect();
    this.#listenToPage();
  }

  /** As for WebSocket; CONNECTING while waiting for the next connection. */
  get readyState() {
    return this.#stopped ? 3 : this.#closeSent ? 2 : this.#ws?.readyState === 1 ? 1 : 0;
  }

  /** The selected subprotocol, or "". */
  get protocol() {
    const protocol = this.#ws?.protocol ?? "";
    return protocol === MARK ? "" : protocol;
  }

  /** The negotiated extensions, or "". */
  get extensions() {
    return this.#ws?.extensions ?? "";
  }

  /** The address of the current or previous connection; "" before the url function has returned the first. */
  get url() {
    return this.#address;
  }

  /** Bytes that the browser has not sent yet, and those that wait for the next connection. */
  get bufferedAmount() {
    return (this.#ws?.bufferedAmount ?? 0) + new Blob(this.#queue).size;
  }

  /**
   * Send a message, or queue it for the next connection. Returns false if it was neither sent nor queued.
   * @param {Data} data
   */
  send(data) {
    const { maxQueue, whenFull } = this.#options;
    if (data === QUESTION || (typeof data === "string" && data.startsWith(RENEWAL))) throw new TypeError("this message is reserved");
    if (this.readyState > 1) return false;
    if (this.readyState) {
      this.#ws?.send(data);
      this.#messagesOut++;
      return true;
    }
    this.#queue.push(data);
    if (this.#queue.length <= maxQueue) return true;
    if (whenFull === "drop") return this.#queue.shift() !== data;
    this.#queue.pop();
    return false;
  }

  /**
   * Close the connection, and do not reconnect. With an open or opening connection, it throws what close()
   * of WebSocket throws, and then has no effect.
   * @param {number | null} code null for a Close without a code and a reason
   * @param {string} reason
   */
  close(code = 1000, reason = "") {
    if (!this.#ws) this.#stop();
    else if (!this.#closeSent) {
      this.#close(code, reason);
      this.#startTimer(() => this.#end("app_closed"), this.#ws.url ? this.#options.closeTimeout : 0);
    }
  }

  /** Connect now, instead of waiting, or after close(). */
  reconnect() {
    if (this.#ws) return;
    if (this.#stopped) this.#listenToPage();
    this.#inCache = false;
    this.#history = { tries: 0, since: 0 };
    this.#turn = 0;
    this.#connect();
  }

  #listenToPage() {
    this.#pageListeners.abort();
    const { signal } = (this.#pageListeners = new AbortController());
    const reschedule = () => this.#reschedule();
    const leave = () => {
      this.#leaving = true;
    };
    addEventListener?.("beforeunload", leave, { signal });
    addEventListener?.("pagehide", (event) => this.#pageHidden(event.persisted), { signal });
    addEventListener?.("pageshow", () => this.#pageShown(), { signal });
    addEventListener?.("online", reschedule, { signal });
    addEventListener?.("offline", reschedule, { signal });
    document?.addEventListener("visibilitychange", reschedule, { signal });
    // Chromium freezes a page that has been hidden for long, and stops delivering its messages.
    document?.addEventListener("freeze", () => this.#pageHidden(true), { signal });
    document?.addEventListener("resume", () => this.#pageShown(), { signal });
  }

  /** @type {(phase: State["phase"], until?: number | null, reason?: Stop | null) => void} */
  #setState(phase, until = null, reason = null) {
    const state = (this.state = { phase, until, reason, last: this.ending });
    this.dispatchEvent(Object.assign(new Event("state"), { state }));
  }

  #connect() {
    const url = this.#sources[this.#turn % this.#sources.length];
    this.#token = undefined;
    this.#stopped = this.#opened = this.#heartbeatOn = this.#leaving = false;
    this.#started = clock();
    this.#messagesIn = this.#messagesOut = 0;
    this.#latency = null;
    this.#startTimer(() => this.#end("handshake_failed"), this.#options.openTimeout);
    const listed = this.#sources.length > 1;
    if (typeof url !== "function" && !this.#options.token && !listed) this.#open(url);
    else this.#ask(url);
    this.#setState("connecting");
  }

  /** @param {Source} url */
  #ask(url) {
    // A placeholder for the connecting WebSocket, until there is an address.
    const pending = (this.#ws = /** @type {any} */ ({ close() {} }));
    /** @type {(then: (value: any) => void) => (value: any) => void} */
    const ifCurrent = (then) => (value) => pending === this.#ws && !this.#closeSent && then(value);
    const open = ifCurrent(([address, token]) => {
      this.#token = token;
      this.#open(address);
    });
    const fail = ifCurrent((error) => this.#end("handshake_failed", null, error));
    (async () => [typeof url === "function" ? await url() : url, await this.#askForToken()])().then(open).catch(fail);
  }

  async #askForToken() {
    const { token } = this.#options;
    if (!token) return;
    const answer = await token();
    const asked = typeof answer === "string" ? { value: answer } : answer;
    if (typeof asked?.value !== "string" || !/^[!-~]+$/.test(asked.value)) throw new TypeError("no token");
    return asked;
  }

  /** @param {Address} address */
  #open(address) {
    const { protocols, pingInterval } = this.#options;
    // new URL() accepts any value: undefined would become "/undefined".
    if (typeof address !== "string" && !address?.href) throw new TypeError("no address");
    // A worker that was created from a Blob has the origin of its page.
    const url = new URL(address, document?.baseURI ?? location?.href.replace("blob:", ""));
    url.protocol = url.protocol.replace("http", "ws");
    if (pingInterval) url.search += (url.search && "&") + QUERY;
    const token = this.#token;
    // base64url, because a subprotocol has no "/" and "=".
    const encoded = token && btoa(token.value).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
    const ws = (this.#ws = new WebSocket(url, token ? [protocols, MARK, PREFIX + encoded].flat() : protocols));
    this.#address = ws.url;
    ws.onopen = () => {
      this.#opened = true;
      clearTimeout(this.#timer);
      ws.binaryType = this.binaryType;
      this.#lastMessage = clock();
      this.#checkStale();
      this.#setState("open");
      // Messages of the "open" listeners go first, then the queued ones.
      this.dispatchEvent(new Event("open"));
      for (const data of this.#queue.splice(0)) this.send(data);
    };
    ws.onmessage = ({ data }) => this.#receive(data);
    ws.onclose = ({ code, reason, wasClean }) => {
      // RFC 6455 section 7.4.1: 1006 and 1015 "MUST NOT be set as a status code in a Close control
      // frame". If a server does that, Firefox reports a clean close.
      const close = wasClean && code !== 1006 && code !== 1015;
      const received = close ? { code: code === 1005 ? null : code, reason } : null;
      const end = () => {
        const network = this.#opened ? "peer_vanished" : "handshake_failed";
        if (ws === this.#ws) this.#end(this.#closeSent ? "app_closed" : close ? "peer_closed" : network, received);
      };
      // Stop the heartbeat.
      this.#heartbeatOn = false;
      clearTimeout(this.#heartbeatTimer);
      clearTimeout(this.#staleTimer);
      // Firefox closes WebSockets as soon as it starts to leave a page, even on a reload, and reports it to
      // the page immediately: 1001 without a reason, or 1006 for an opening handshake. The pagehide event
      // follows only when the next page arrives.
      if (this.#leaving && !reason && (code === 1001 || !this.#opened)) after(end, LEAVE_DELAY);
      else if (code === 1001) after(end, 0.2);
      else end();
    };
  }

  /** @type {(code: number | null, reason: string) => void} */
  #close(code, reason) {
    if (code === null) this.#ws?.close();
    else this.#ws?.close(code, reason);
    this.#closeSent = { code, reason: code === null ? "" : reason };
  }

  /**
   * Record that the connection has ended, and schedule the next attempt.
   * @param {Cause} cause
   * @param {Close | null} received
   * @param {unknown} error
   */
  #end(cause, received = null, error = null) {
    const ws = this.#ws;
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.close();
    clearTimeout(this.#heartbeatTimer);
    clearTimeout(this.#renewalTimer);
    clearTimeout(this.#staleTimer);
    const now = clock();
    const duration = now - this.#started;
    // A browser answers a Close with the code that it received.
    const sent = (this.#opened && this.#closeSent) || received;
    const ending = (this.ending = {
      cause,
      initiator: cause === "peer_closed" ? "peer" : CAUSES[cause][0],
      clean: !!received,
      received,
      sent,
      code: sent ? (sent.code ?? 1005) : 1006,
      reason: sent ? sent.reason : "",
      ok: !!received && CLEAN.includes(sent?.code ?? 1005),
      opened_at: Date.now() / 1000 - duration,
      duration,
      messages_in: this.#messagesIn,
      messages_out: this.#messagesOut,
      unsent_bytes: ws.bufferedAmount ?? 0,
      latency: this.#latency,
    });
    this.#ws = this.#closeSent = null;
    let wait = null;
    let stop = null;
    if (this.#inCache) this.#setState("waiting");
    else {
      const { base, maxDelay, stableAfter } = this.#options;
      const { tries, since } = this.#history;
      const stable = this.#opened && duration >= stableAfter;
      this.#turn = stable ? 0 : this.#turn + 1;
      const history = (this.#history = stable || !tries ? { tries: 1, since: now } : { tries: tries + 1, since });
      const jitter = Math.random();
      const verdict = decide(this.#options, history, ending, now, jitter);
      if (typeof verdict === "string") {
        stop = verdict;
        this.#stop(stop);
      } else {
        this.#earliest = now + Number(decide(this.#options, history, ending, now, 0));
        this.#nextAttempt = now + verdict;
        this.#nextIdleAttempt = Math.max(this.#nextAttempt, now + base + jitter * maxDelay);
        wait = this.#connectAt(idle() ? this.#nextIdleAttempt : this.#nextAttempt);
      }
    }
    this.dispatchEvent(Object.assign(new Event("ending"), { ending, wait, stop, error }));
  }

  /** @type {(reason?: Stop) => void} */
  #stop(reason = "done") {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#queue = [];
    clearTimeout(this.#timer);
    this.#pageListeners.abort();
    this.#setState("stopped", null, reason);
  }

  /** @type {(callback: () => void, seconds: number) => void} */
  #startTimer(callback, seconds) {
    clearTimeout(this.#timer);
    this.#timer = after(callback, seconds);
  }

  /** @param {number} due */
  #connectAt(due) {
    const seconds = Math.max(0, due - clock());
    this.#startTimer(() => this.#connect(), seconds);
    this.#setState("waiting", Date.now() / 1000 + seconds);
    return seconds;
  }

  // -- page events: visibility, online state, back/forward cache --------------------------

  #reschedule() {
    if (this.#inCache || this.#stopped) return;
    if (!this.#ws) {
      // At a random time within a second, because a network that returns wakes all pages at the same time.
      const soon = Math.max(this.#earliest, clock() + Math.random());
      this.#connectAt(idle() ? this.#nextIdleAttempt : Math.min(this.#nextAttempt, soon));
    } else if (this.#heartbeatOn && !document?.hidden && this.#heartbeatSent <= this.#lastReceived) {
      this.#sendHeartbeat(this.#options.pingTimeout / 2);
    }
  }

  /** @param {boolean} kept whether the browser keeps the page */
  #pageHidden(kept) {
    if (this.#closeSent || this.#stopped) return;
    this.#inCache = true;
    clearTimeout(this.#timer);
    if (!this.#ws) return this.#setState("waiting");
    if (this.readyState) this.#close(PAGE_LEFT, kept ? "page hidden" : "page left");
    else this.#closeSent = { code: 1001, reason: "" }; // the browser has already closed it, as Firefox always does
    this.#end("app_closed");
  }

  #pageShown() {
    if (!this.#inCache) return;
    this.#inCache = false;
    this.#connectAt(this.#earliest);
  }

  // -- the heartbeat, which starts when the server sends the first answer ------------------

  /** @param {Data} data */
  #receive(data) {
    const { pingInterval } = this.#options;
    this.#lastReceived = clock();
    this.#unanswered = 0;
    if (pingInterval && data === ANSWER) {
      if (this.#heartbeatOn) this.#latency = this.#lastReceived - this.#heartbeatSent;
      this.#heartbeatOn = true;
      this.#scheduleCheck(pingInterval);
    } else if (this.#token && data === RENEWAL + this.#token.value) {
      this.#scheduleRenewal();
    } else {
      this.#messagesIn++;
      this.#lastMessage = this.#lastReceived;
      this.dispatchEvent(new MessageEvent("message", { data }));
    }
  }

  // -- a connection without messages ------------------------------------------------------

  #checkStale(late = false) {
    const rest = this.#lastMessage + (this.#options.staleAfter || Infinity) - clock();
    if (this.#closeSent) return;
    // After a late timer, messages may still wait in the event loop.
    const seconds = late ? Math.max(1, rest) : rest;
    if (seconds > 0) this.#staleTimer = afterOrLate((late) => this.#checkStale(late), seconds);
    else {
      this.#close(TIMEOUT, "no message");
      this.#end("idle_timeout");
    }
  }

  // -- renewal of the token, which starts when the server says that it takes new ones -------

  #scheduleRenewal() {
    const seconds = (Number(this.#token?.until) - Date.now()) / 1000;
    clearTimeout(this.#renewalTimer);
    if (seconds > 0) this.#renewalTimer = after(() => this.#renew(), Math.max(1, seconds * SHARE));
  }

  async #renew() {
    const ws = this.#ws;
    const old = this.#token;
    const token = await this.#askForToken().catch((error) => {
      console.warn("the token was not renewed:", error);
      return old;
    });
    if (ws !== this.#ws || this.#closeSent || !token) return;
    this.#token = token;
    if (token.value !== old?.value) ws?.send(RENEWAL + token.value);
    this.#scheduleRenewal();
  }

  /** @param {number} timeout */
  #sendHeartbeat(timeout) {
    this.#unanswered++;
    this.#heartbeatSent = clock();
    this.#bufferedBefore = this.#ws?.bufferedAmount ?? 0;
    this.#ws?.send(QUESTION);
    this.#scheduleCheck(timeout);
  }

  /** @param {number} seconds */
  #scheduleCheck(seconds) {
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = afterOrLate((late) => this.#checkHeartbeat(late), seconds);
  }

  /** @param {boolean} late whether the timer ran late */
  #checkHeartbeat(late) {
    if (this.#closeSent) return;
    const { pingInterval, pingTimeout } = this.#options;
    const rest = pingInterval - (clock() - this.#lastReceived);
    if (this.#heartbeatSent <= this.#lastReceived && rest > 0) this.#scheduleCheck(rest);
    // A late timer means that the machine slept or the browser throttled the page: ask again. A send queue
    // that shrinks proves that the server is reading.
    else if (!this.#unanswered || (late && this.#unanswered < 2) || (this.#ws?.bufferedAmount ?? 0) < this.#bufferedBefore)
      this.#sendHeartbeat(pingTimeout);
    else {
      this.#close(TIMEOUT, "no answer");
      this.#end("keepalive_timeout");
    }
  }
}
