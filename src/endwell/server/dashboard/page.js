/** The page: which view is shown, what the state of the connection is, and who gets the summaries. */

import { Connections } from "./connections.js";
import { Dialogs } from "./dialogs.js";
import { clock, mark, say } from "./dom.js";
import { Endings } from "./endings.js";
import { Feed } from "./feed.js";
import { Fleet } from "./fleet.js";

/** Maximum characters of a text in the address. Fields have the same limit: the server ends a feed that asks with a very long text. */
const LONGEST = 200;
const VIEWS = { connections: "Connections", endings: "Endings", rooms: "Rooms", workers: "Workers" };

const element = (id) => document.getElementById(id);
const feed = new Feed("feed");
const dialogs = new Dialogs(feed);
const fleet = new Fleet(feed, dialogs);
const views = {
  connections: new Connections(feed, element("connections-view"), { open: (id) => dialogs.connection(id), navigate: (fields) => navigate("connections", fields) }),
  endings: new Endings(feed, element("endings-view"), { open: (row) => dialogs.ending(row), navigate: (fields) => navigate("endings", fields) }),
};

// -- views: the fragment of the address has the view and its query, so that it can be sent to a colleague --------

/** The view of the address, and its query. */
function place() {
  const [view, query = ""] = location.hash.slice(1).split("?");
  const texts = [...new URLSearchParams(query)].map(([name, text]) => [name, text.slice(0, LONGEST)]);
  return [Object.hasOwn(VIEWS, view) ? view : "connections", new URLSearchParams(texts)];
}

function navigate(view, fields) {
  const [, parameters] = place();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === "" || value === false) parameters.delete(name);
    else parameters.set(name, value);
  }
  const query = String(parameters);
  history.replaceState(null, "", `#${view}${query && `?${query}`}`);
  show();
}

let shown = null;

function show() {
  const [view, parameters] = place();
  for (const name of Object.keys(VIEWS)) {
    element(`${name}-view`).hidden = name !== view;
    mark(document.querySelector(`nav a[href="#${name}"]`), "aria-current", name === view ? "page" : null);
    if (name !== view) views[name]?.hide();
  }
  document.title = `${VIEWS[view]} – endwell`;
  views[view]?.show(parameters);
  shown = view;
}

addEventListener("hashchange", () => {
  const before = shown;
  show();
  // A link inside the page has led here: continue at the heading, unless the focus is on the link in the header.
  if (before !== shown && !document.activeElement?.closest("nav")) element(`${shown}-title`).focus();
});

// -- the state of the connection ----------------------------------------------------------------------------

const [dot, told, countdown, known] = element("state").children;
let ticking = 0;

/** What the state is, in words, and the class of its dot. */
function describe({ phase, reason, last }) {
  if (phase === "open") return feed.paused ? ["Paused", "idle"] : ["Live", "good"];
  if (phase === "stopped") return [reason === "refused" && last ? `Refused by the server: ${last.code}${last.reason ? ` “${last.reason}”` : ""}` : "Disconnected", "bad"];
  if (!last) return ["Connecting …", "busy"];
  if (last.cause === "handshake_failed") return ["Not reachable, or not allowed", "bad"];
  if (last.cause === "peer_closed" && [1001, 1012].includes(last.code)) return ["The server restarts", "busy"];
  return ["The connection was lost", "bad"];
}

function state() {
  const { phase, until } = feed.state;
  const [text, kind] = describe(feed.state);
  say(told, text);
  dot.className = `dot ${kind}`;
  element("again").hidden = phase !== "stopped";
  document.body.classList.toggle("stale", phase !== "open");
  say(element("host"), feed.about.host);
  mark(element("host"), "title", feed.about.version && `endwell ${feed.about.version}`);
  clearInterval(ticking);
  const tick = () => {
    const rest = until === null ? null : Math.max(0, Math.ceil(until - Date.now() / 1000));
    say(countdown, phase !== "waiting" || rest === null ? "" : rest ? `, next attempt in ${rest} s` : ", next attempt now");
    say(known, phase !== "open" && feed.summary ? `, numbers of ${clock(feed.summary.at)}` : "");
  };
  tick();
  if (phase === "waiting") ticking = setInterval(tick, 250);
}

feed.addEventListener("state", state);
feed.addEventListener("watch", state);
feed.addEventListener("summary", ({ detail }) => {
  fleet.summary(detail);
  views.endings.summary(detail);
});
element("pause").addEventListener("click", () => {
  feed.pause(!feed.paused);
  mark(element("pause"), "aria-pressed", String(feed.paused));
  state();
});
element("again").addEventListener("click", () => feed.connect());

state();
show();
