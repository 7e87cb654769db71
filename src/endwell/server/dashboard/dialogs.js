/** One connection or one ending in detail, and the actions, each of which is confirmed. */

import { age, bytes, date, h, keyed, latency, NONE, plural, say, swatch, who, words } from "./dom.js";
import { Lost } from "./feed.js";

/** Seconds between two looks at the connection that is shown. */
const EVERY = 1;
/** RFC 6455 §5.5: a control frame has at most 125 bytes, of which the code takes 2. */
const MAX_REASON = 123;

const closing = () => h("button", { type: "button", class: "quiet", "aria-label": "Close this window", click: (event) => event.target.closest("dialog").close() }, "✕");

/** A list of names and values; the elements stay, so that a selection of text stays. */
function facts(list, rows) {
  const shown = new Map(rows.filter(([, value]) => value != null && value !== ""));
  keyed(
    list,
    [...shown.keys()],
    (name) => h("div", {}, h("dt", {}, name), h("dd", {})),
    (item, name) => say(item.lastChild, shown.get(name)),
  );
}

const yes = (value) => (value == null ? null : value ? "yes" : "no");
const close = (frame) => frame && (frame.code == null ? "without a code" : `${frame.code}${frame.reason ? ` “${frame.reason}”` : ""}`);

export class Dialogs {
  #feed;
  #detail = document.getElementById("detail");
  #confirm = document.getElementById("confirm");
  #timer = 0;
  /** What the open window shows; a late answer for another one is ignored. */
  #subject = null;

  constructor(feed) {
    this.#feed = feed;
    this.#detail.addEventListener("close", () => {
      // The event comes a moment after the window has closed, and another row may be open by then.
      if (this.#detail.open) return;
      clearTimeout(this.#timer);
      this.#subject = null;
    });
    // A click on the backdrop, which is no child of the dialog's content.
    this.#detail.addEventListener("click", (event) => event.target === this.#detail && this.#detail.close());
    this.#detail.addEventListener("click", (event) => event.target.closest("a") && this.#detail.close());
  }

  /** Show a connection, as long as it is open and after its end. */
  connection(id) {
    const list = h("dl", { class: "facts" });
    const title = h("h2", { id: "detail-title", tabindex: "-1", autofocus: true }, "…");
    const trouble = h("p", { class: "trouble", role: "status" });
    const act = h("button", { type: "button", class: "danger", click: () => this.close(row), hidden: true }, "Close this connection …");
    const link = h("a", { hidden: true }, "Its earlier endings");
    let row = null;
    clearTimeout(this.#timer);
    const subject = (this.#subject = {});
    const ask = async () => {
      try {
        const answer = await this.#feed.ask("connection", { connection: id });
        if (subject !== this.#subject) return;
        row = answer.connection;
        say(title, who(row));
        say(trouble, "");
        facts(list, [
          ["Key", row.key],
          ["Subject", row.subject],
          ["Address", row.address],
          ["Path", row.path],
          ["Route", row.route],
          ["State", row.slow ? `${row.state}, slow` : row.state],
          ["Age", age(row.age)],
          ["Idle", row.idle == null ? null : age(row.idle)],
          ["Round trip", latency(row.latency)],
          ["Queued", bytes(row.queued)],
          ["Received", `${plural(row.messages_in, "message")}, ${bytes(row.bytes_in)}`],
          ["Sent", `${plural(row.messages_out, "message")}, ${bytes(row.bytes_out)}`],
          ["Rooms", row.rooms?.join(", ")],
          ["Subprotocol", row.subprotocol],
          ["Compressed", yes(row.compressed)],
          ["User agent", row.user_agent],
          ["Worker", row.worker],
          ["Connection", row.connection],
        ]);
        act.hidden = !this.#feed.about.actions.includes("close");
        link.hidden = false;
        link.href = `#endings?${new URLSearchParams({ search: who(row) })}`;
      } catch (error) {
        // The top of the page says that the feed is lost.
        if (subject !== this.#subject || (row && error instanceof Lost)) return;
        act.hidden = true;
        say(trouble, error.message);
        const { rows } = await this.#feed.ask("endings", { search: id, cause: null, code: null, limit: 20 }).catch(() => ({ rows: [] }));
        const ended = rows.find(({ connection }) => connection === id);
        if (ended && subject === this.#subject) this.ending(ended);
      }
    };
    const look = async () => {
      if (this.#feed.watching || !row) await ask();
      // Also without an answer: the feed comes back, a worker may run again, and an ending may be known a moment later.
      if (subject === this.#subject) this.#timer = setTimeout(look, EVERY * 1000);
    };
    this.#show([h("div", { class: "title" }, h("p", { class: "kind soft" }, "Connection"), title, closing()), trouble, list, h("div", { class: "buttons" }, link, act)]);
    look();
  }

  /** Show how a connection ended. */
  ending(row) {
    const { ending } = row;
    this.#subject = row;
    clearTimeout(this.#timer);
    const list = h("dl", { class: "facts" });
    facts(list, [
      ["When", date(row.at)],
      ["Cause", words(ending.cause)],
      ["Who ended it", { peer: "the peer", local: "this server", network: "the network" }[ending.initiator] ?? ending.initiator],
      ["Code", ending.code],
      ["Reason", ending.reason],
      ["Received Close", close(ending.received) ?? "none"],
      ["Sent Close", close(ending.sent) ?? "none"],
      ["Clean", yes(ending.clean)],
      ["TCP", ending.tcp],
      ["Error", ending.exception],
      ["Lasted", age(ending.duration)],
      ["Last round trip", latency(ending.latency)],
      ["Received", `${plural(ending.messages_in, "message")}, ${bytes(ending.bytes_in)}`],
      ["Sent", `${plural(ending.messages_out, "message")}, ${bytes(ending.bytes_out)}`],
      ["Never sent", ending.unsent_bytes ? bytes(ending.unsent_bytes) : null],
      ["Dropped", ending.dropped_messages ? plural(ending.dropped_messages, "message") : null],
      ["Server stalled", ending.stalled ? age(ending.stalled) : null],
      ["Key", row.key],
      ["Subject", row.subject],
      ["Address", row.address],
      ["Route", row.route],
      ["Worker", row.worker],
      ["Connection", row.connection],
    ]);
    const json = h("pre", { tabindex: "0", role: "region", "aria-label": "All fields as JSON" }, JSON.stringify(ending, null, 2));
    const search = (view) => `#${view}?${new URLSearchParams({ search: who(row) })}`;
    this.#show([
      h("div", { class: "title" }, h("p", { class: "kind soft" }, swatch(ending.cause), `Ended: ${words(ending.cause)}`), h("h2", { id: "detail-title", tabindex: "-1", autofocus: true }, who(row)), closing()),
      h("p", { class: "sentence" }, row.sentence),
      list,
      h("details", { class: "numbers" }, h("summary", {}, "All fields as JSON"), json),
      h("div", { class: "buttons" }, h("a", { href: search("connections") }, "Connections of this peer now"), h("a", { href: search("endings") }, "All its endings")),
    ]);
  }

  #show(parts) {
    this.#detail.replaceChildren(...parts);
    if (!this.#detail.open) this.#detail.showModal();
    // What had the focus is gone; a screen reader reads on here.
    else document.getElementById("detail-title").focus();
    this.#detail.scrollTop = 0;
  }

  close(row) {
    const code = h("input", { type: "number", name: "code", min: 1000, max: 4999, value: 1000, required: true, list: "codes", inputmode: "numeric", "aria-describedby": "code-name" });
    const named = h("small", { id: "code-name", class: "soft" });
    const reason = h("input", { type: "text", name: "reason", maxlength: MAX_REASON, autocomplete: "off" });
    const size = h("small", { id: "reason-size", class: "soft" });
    const told = () => {
      const name = this.#feed.about.codes[code.value];
      say(named, name ? words(name) : code.value >= 4000 ? "a code of your application" : code.value >= 3000 ? "a registered code" : NONE);
      const bytes = new TextEncoder().encode(reason.value).length;
      say(size, `${bytes} of ${MAX_REASON} bytes`);
      reason.setCustomValidity(bytes > MAX_REASON ? `At most ${MAX_REASON} bytes` : "");
    };
    const fields = [
      h("label", { class: "field" }, "Code", code, named),
      h("datalist", { id: "codes" }, Object.entries(this.#feed.about.codes).map(([value, name]) => h("option", { value }, words(name)))),
      h("label", { class: "field" }, "Reason, which the peer receives", reason, size),
    ];
    for (const field of [code, reason]) field.addEventListener("input", told);
    told();
    this.#ask({
      title: `Close the connection of ${who(row)}?`,
      text: `${row.path ?? row.route} from ${row.address}, open for ${age(row.age)}. The code tells the client whether to come back.`,
      fields,
      action: "Close the connection",
      run: () => this.#feed.ask("close", { connection: row.connection, code: code.valueAsNumber, reason: reason.value }),
      done: `The connection of ${who(row)} is being closed.`,
    });
  }

  drain(worker) {
    this.#ask({
      title: `Drain worker ${worker.worker}?`,
      text: `It takes no new connections, and closes its ${plural(worker.connections, "connection")} over the window of its drain, each as soon as its handler is idle. Then the process ends.`,
      action: "Drain the worker",
      run: () => this.#feed.ask("drain", { worker: worker.worker }),
      done: `Worker ${worker.worker} is draining.`,
    });
  }

  restart(workers) {
    this.#ask({
      title: "Restart all workers?",
      text: `${plural(workers, "worker")} will be replaced without downtime: the new ones serve before the old ones drain. This page will reconnect, too.`,
      action: "Begin the rolling restart",
      run: () => this.#feed.ask("restart"),
      done: "The rolling restart has begun.",
    });
  }

  #ask({ title, text, fields = [], action, run, done }) {
    const trouble = h("p", { class: "trouble", role: "alert" });
    const go = h("button", { type: "submit", class: "danger" }, action);
    const cancel = h("button", { type: "button", click: () => this.#confirm.close() }, "Cancel");
    const submit = async (event) => {
      event.preventDefault();
      if (go.getAttribute("aria-disabled")) return;
      go.setAttribute("aria-disabled", "true");
      say(trouble, "");
      try {
        await run();
        if (!form.isConnected) return;
        this.#confirm.close();
        const said = document.getElementById("said");
        say(said, done);
        setTimeout(() => said.textContent === done && say(said, ""), 6000);
      } catch (error) {
        say(trouble, error.message);
      }
      go.removeAttribute("aria-disabled");
    };
    const form = h("form", { submit, novalidate: false }, h("div", { class: "title" }, h("h2", { id: "confirm-title" }, title)), h("p", {}, text), fields, trouble, h("div", { class: "buttons" }, cancel, go));
    this.#confirm.replaceChildren(form);
    this.#confirm.showModal();
    // Not the button that does it.
    (form.querySelector("input") ?? cancel).focus();
  }
}

