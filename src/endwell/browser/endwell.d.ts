// Made by tools/browser_types.py from the comments of endwell.js: change those, then run `make types`.
/**
 * A WebSocket for web pages that reconnects like endwell's Python client and reports how each connection
 * ended. All times are in seconds. Documentation: docs/howto/browser.md in endwell's repository.
 */
declare const CAUSES: {
    readonly app_closed: readonly ["local", "never"];
    readonly keepalive_timeout: readonly ["local", "now"];
    readonly idle_timeout: readonly ["local", "now"];
    readonly peer_vanished: readonly ["network", "now"];
    readonly handshake_failed: readonly ["local", "later"];
};
/** whether to reconnect: never, immediately, or after a back-off */
export type Retry = "never" | "now" | "later";
/** why there is no further attempt */
export type Stop = "done" | "refused" | "retries" | "time";
/** why a connection ended */
export type Cause = "peer_closed" | keyof typeof CAUSES;
/** a Close frame; null for a Close without a code */
export type Close = {
    code: number | null;
    reason: string;
};
/** a message */
export type Data = Parameters<WebSocket["send"]>[0];
/** `until`: when it expires, a Date or ms since 1970 */
export type Token = {
    value: string;
    until?: Date | number;
};
/** a URL, relative to the page or to the worker's script */
export type Address = string | URL;
/** an address, or a function that returns one or a promise of one */
export type Source = Address | (() => Address | PromiseLike<Address>);
/** Where the client stands, for a user interface: the fields of endwell.ClientState. */
export type State = {
    phase: "connecting" | "open" | "waiting" | "stopped";
    /**
     * waiting: time of the next attempt, in seconds since 1970; null while the browser keeps the page out of sight
     */
    until: number | null;
    /**
     * stopped: why there is no further attempt
     */
    reason: Stop | null;
    /**
     * how the previous connection or attempt ended
     */
    last: Ending | null;
};
/** How a connection ended: the fields of endwell.Ending that a page can know. */
export type Ending = {
    cause: Cause;
    initiator: "peer" | "local" | "network";
    /**
     * whether the closing handshake was completed
     */
    clean: boolean;
    /**
     * the server's Close
     */
    received: Close | null;
    /**
     * the Close that this side sent
     */
    sent: Close | null;
    /**
     * the code of the first Close; 1005 for a Close without a code, 1006 without a Close
     */
    code: number;
    reason: string;
    /**
     * whether it was an ordinary ending
     */
    ok: boolean;
    /**
     * wall-clock time, in seconds since 1970
     */
    opened_at: number;
    /**
     * seconds
     */
    duration: number;
    messages_in: number;
    messages_out: number;
    /**
     * bytes that the browser had not sent
     */
    unsent_bytes: number;
    /**
     * round-trip time of the last heartbeat, in seconds
     */
    latency: number | null;
};
/** the policy of endwell.RetryPolicy, and the limits of endwell.Options */
export type Options = {
    /**
     * subprotocols, as for WebSocket
     */
    protocols: string | string[];
    /**
     * called for each connection: a bearer token to send
     */
    token?: () => string | Token | PromiseLike<string | Token>;
    /**
     * seconds: scale of the back-off, and minimum wait, except for the first "now"
     */
    base: number;
    /**
     * seconds: maximum of the back-off
     */
    maxDelay: number;
    /**
     * seconds: a connection that lasts this long resets the count of attempts
     */
    stableAfter: number;
    /**
     * seconds: maximum wait that a server can request; longer ones are cut to it
     */
    maxAdvised: number;
    /**
     * maximum attempts in a row, a whole number; 0: none, Infinity: no limit
     */
    maxRetries: number;
    /**
     * seconds: maximum duration of the attempts in a row; Infinity: no limit
     */
    maxTime: number;
    /**
     * your decision for close codes; 1006: a connection ended without a Close
     */
    codes: Record<number, Retry>;
    /**
     * seconds without a message until a heartbeat is sent; 0: no heartbeat, Infinity: only when the page comes back
     */
    pingInterval: number;
    /**
     * seconds without an answer to a heartbeat until the connection is closed; Infinity: no limit
     */
    pingTimeout: number;
    /**
     * seconds without a message until the connection is closed, and replaced by another one; 0 or Infinity: no limit
     */
    staleAfter: number;
    /**
     * seconds: maximum duration of the opening handshake; Infinity: no limit
     */
    openTimeout: number;
    /**
     * seconds: maximum duration of the closing handshake
     */
    closeTimeout: number;
    /**
     * maximum number of messages that wait for the next connection, a whole number; 0: none, Infinity: no limit
     */
    maxQueue: number;
    /**
     * with a full queue, send() returns false, or the oldest message is dropped
     */
    whenFull: "refuse" | "drop";
};
/** number of endings in a row, and time of the first one */
export type History = {
    tries: number;
    since: number;
};
export type EndingEvent = Event & {
    ending: Ending;
    wait: number | null;
    stop: Stop | null;
    error: unknown;
};
export type StateEvent = Event & {
    state: State;
};
export type EventMap = {
    open: Event;
    message: MessageEvent;
    ending: EndingEvent;
    state: StateEvent;
};
/** EventTarget with the types of these events, as TypeScript declares them for WebSocket. */
export type Typed = {
    addEventListener: <K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void, options?: boolean | AddEventListenerOptions) => void;
    removeEventListener: <K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void, options?: boolean | EventListenerOptions) => void;
};
/**
 * When to reconnect. The result is the same as that of RetryPolicy.decide.
 * @param {Options} policy
 * @param {History} history including `ending`
 * @param {Ending} ending
 * @param {number} now
 * @param {number} jitter random number in [0, 1)
 * @returns {number | Stop} seconds to wait, or why there is no further attempt
 */
export declare function decide(policy: Options, history: History, { cause, code, reason, ok }: Ending, now: number, jitter: number): number | Stop;
declare const ReconnectingWebSocket_base: new () => Typed & EventTarget;
/**
 * A WebSocket that reconnects. Its events are "open", once for each connection; "message"; "ending",
 * once for each connection and failed attempt; and "state", for each new `state`, before "open" and "ending". An EndingEvent has the `ending`, and either `wait`, the
 * seconds until the next attempt, or `stop`, the reason why there is none. Both are null if the browser
 * keeps the page in its back/forward cache; the next attempt follows when the page is shown again. `error`
 * is the exception of the url or token function, if that caused the ending.
 */
export declare class ReconnectingWebSocket extends ReconnectingWebSocket_base {
    #private;
    /** @readonly */ static readonly CONNECTING: 0;
    /** @readonly */ static readonly OPEN: 1;
    /** @readonly */ static readonly CLOSING: 2;
    /** @readonly */ static readonly CLOSED: 3;
    /** @readonly */ readonly CONNECTING: 0;
    /** @readonly */ readonly OPEN: 1;
    /** @readonly */ readonly CLOSING: 2;
    /** @readonly */ readonly CLOSED: 3;
    /** @type {Ending | null} the ending of the previous connection */
    ending: Ending | null;
    /** @type {State} a new object for each change */
    state: State;
    /** @type {BinaryType} applies to the next connection */
    binaryType: BinaryType;
    /** @type {((event: Event) => void) | null} */
    onopen: ((event: Event) => void) | null;
    /** @type {((event: MessageEvent) => void) | null} */
    onmessage: ((event: MessageEvent) => void) | null;
    /** @type {((event: EndingEvent) => void) | null} */
    onending: ((event: EndingEvent) => void) | null;
    /** @type {((event: StateEvent) => void) | null} */
    onstate: ((event: StateEvent) => void) | null;
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
    constructor(url: Source | Source[], options?: Partial<Options>);
    /** As for WebSocket; CONNECTING while waiting for the next connection. */
    get readyState(): 0 | 1 | 2 | 3;
    /** The selected subprotocol, or "". */
    get protocol(): string;
    /** The negotiated extensions, or "". */
    get extensions(): string;
    /** The address of the current or previous connection; "" before the url function has returned the first. */
    get url(): string;
    /** Bytes that the browser has not sent yet, and those that wait for the next connection. */
    get bufferedAmount(): number;
    /**
     * Send a message, or queue it for the next connection. Returns false if it was neither sent nor queued.
     * @param {Data} data
     */
    send(data: Data): boolean;
    /**
     * Close the connection, and do not reconnect. With an open or opening connection, it throws what close()
     * of WebSocket throws, and then has no effect.
     * @param {number | null} code null for a Close without a code and a reason
     * @param {string} reason
     */
    close(code?: number | null, reason?: string): void;
    /** Connect now, instead of waiting, or after close(). */
    reconnect(): void;
}
export {};
