// Made by tools/browser_types.py from the comments of endwell.js: change those, then run `make types`.
/**
 * A WebSocket for pages: it comes back as endwell's Python client does, and tells how each
 * connection ended. Times are in seconds. A page about it: docs/howto/browser.md in endwell's repository.
 */
declare const CAUSES: {
    readonly app_closed: readonly ["local", "never"];
    readonly keepalive_timeout: readonly ["local", "now"];
    readonly peer_vanished: readonly ["network", "now"];
    readonly handshake_failed: readonly ["local", "later"];
};
/** whether to come back */
export type Retry = "never" | "now" | "later";
/** why not to come back */
export type Stop = "done" | "refused" | "retries" | "time";
/** why a connection ended */
export type Cause = "peer_closed" | keyof typeof CAUSES;
/** a Close frame; its code is null if it had none */
export type Close = {
    code: number | null;
    reason: string;
};
/** a message */
export type Data = Parameters<WebSocket["send"]>[0];
/** where to connect to, relative to the page or the worker's script */
export type Address = string | URL;
/** How a connection ended: what endwell.Ending says, but for what no page can know. */
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
     * ours
     */
    sent: Close | null;
    /**
     * that of the Close that came first; 1005 if it had none, 1006 if there was no Close
     */
    code: number;
    reason: string;
    /**
     * whether it was an ordinary ending
     */
    ok: boolean;
    /**
     * wall-clock time
     */
    opened_at: number;
    duration: number;
    messages_in: number;
    messages_out: number;
    /**
     * taken by the browser, and not sent
     */
    unsent_bytes: number;
    /**
     * the last heartbeat's round trip
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
     * the scale of the back-off; and the least wait, except for the first "now"
     */
    base: number;
    /**
     * where the back-off stops growing
     */
    maxDelay: number;
    /**
     * a connection that lasted so long was stable: counting begins anew
     */
    stableAfter: number;
    /**
     * the longest wait that a server can ask for; more is cut to it
     */
    maxAdvised: number;
    /**
     * in a row; then it gives up
     */
    maxRetries: number;
    /**
     * for the tries in a row
     */
    maxTime: number;
    /**
     * your own word on close codes; 1006: it was open, and no Close came
     */
    codes: Record<number, Retry>;
    /**
     * after so much silence the server is asked whether it is there; 0: never
     */
    pingInterval: number;
    /**
     * unanswered for so long, the connection has ended
     */
    pingTimeout: number;
    /**
     * the opening handshake
     */
    openTimeout: number;
    /**
     * the closing handshake
     */
    closeTimeout: number;
    /**
     * messages that wait for the next connection
     */
    maxQueue: number;
    /**
     * what then happens: send() returns false, or the oldest is dropped
     */
    whenFull: "refuse" | "drop";
};
/** endings in a row, and when the first of them came */
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
export type EventMap = {
    open: Event;
    message: MessageEvent;
    ending: EndingEvent;
};
/** EventTarget with the types of these events, as TypeScript has them for a WebSocket. */
export type Typed = {
    addEventListener: <K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void, options?: boolean | AddEventListenerOptions) => void;
    removeEventListener: <K extends keyof EventMap>(type: K, listener: (event: EventMap[K]) => void, options?: boolean | EventListenerOptions) => void;
};
/**
 * When to come back: what RetryPolicy.decide says.
 * @param {Options} policy
 * @param {History} history with `ending` in it
 * @param {Ending} ending
 * @param {number} now
 * @param {number} dice in [0, 1)
 * @returns {number | Stop} how long to wait
 */
export declare function decide(policy: Options, history: History, { cause, code, reason, ok }: Ending, now: number, dice: number): number | Stop;
declare const ReconnectingWebSocket_base: new () => Typed & EventTarget;
/**
 * Events: "open", for each connection; "message"; and "ending", once for each connection. An
 * EndingEvent has the `ending`, and either `wait`, the time until the next try, or `stop`, why there is
 * none. Both are null while the browser keeps the page out of sight; it comes back when it is shown.
 * `error` is what the url function threw, if that was the end of it.
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
    /** @type {Ending | null} that of the last connection that has ended */
    ending: Ending | null;
    /** @type {BinaryType} of the next connection */
    binaryType: BinaryType;
    /** @type {((event: Event) => void) | null} */
    onopen: ((event: Event) => void) | null;
    /** @type {((event: MessageEvent) => void) | null} */
    onmessage: ((event: MessageEvent) => void) | null;
    /** @type {((event: EndingEvent) => void) | null} */
    onending: ((event: EndingEvent) => void) | null;
    /**
     * Throws what a WebSocket throws, and RangeError for `codes` that can match nothing.
     * @param {Address | (() => Address | PromiseLike<Address>)} url a function is called, and awaited, for
     * each connection; if it throws, that is a failed handshake
     * @param {Partial<Options>} options
     */
    constructor(url: Address | (() => Address | PromiseLike<Address>), options?: Partial<Options>);
    /** As of a WebSocket; while it waits for the next connection it is CONNECTING. */
    get readyState(): 0 | 1 | 2 | 3;
    /** The subprotocol agreed on, or "". */
    get protocol(): string;
    /** The extensions agreed on, or "". */
    get extensions(): string;
    /** The address of this connection, or of the last one; "" before a url function has given the first. */
    get url(): string;
    /** Bytes that were sent and have not gone out, with those that wait for the next connection. */
    get bufferedAmount(): number;
    /**
     * Send a message, or keep it for the next connection; false if it was neither.
     * @param {Data} data
     */
    send(data: Data): boolean;
    /**
     * Close for good. With a connection, or one that is opening, it throws what close() of a WebSocket
     * throws, and then nothing has changed.
     * @param {number | null} code null: a Close without a code, and without a reason
     * @param {string} reason
     */
    close(code?: number | null, reason?: string): void;
    /** Try now, even if it was closed for good. */
    reconnect(): void;
}
export {};
