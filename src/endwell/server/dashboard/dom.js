/**
 * Elements and texts of the page. Everything that a peer has sent comes into the page as text (a text node, or
 * the value of an attribute that is no URL, style or script), never as HTML.
 */

const SVG = "http://www.w3.org/2000/svg";

/** @param {Element} element @param {Record<string, any>} attributes @param {any[]} children */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** A new element; a function among the attributes is a listener, a string among the children is text. */
export const h = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);

/** The same for SVG. */
export const s = (name, attributes = {}, ...children) => filled(document.createElementNS(SVG, name), attributes, children);

/** Set the text of an element, if it is another one: nothing is drawn and no text is selected anew. */
export function say(element, text) {
  const wanted = String(text ?? "");
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Set or remove an attribute, if it has another value. */
export function mark(element, name, value) {
  if (value == null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

/** Call `each` with the element of every key, in the order of `keys`; `make` makes those that are new. */
export function keyed(parent, keys, make, each) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const key of keys.map(String)) {
    let child = old.get(key);
    if (child) old.delete(key);
    else (child = make(key)).dataset.key = key;
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    each(child, key);
  }
  for (const child of old.values()) child.remove();
}

// One language, that of the page, so that "1,234" does not depend on the browser.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const times = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dates = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** What stands for a value that does not exist. */
export const NONE = "–";

export const count = (value) => (value == null ? NONE : whole.format(value));
export const plural = (value, one, more = one + "s") => `${count(value)} ${value === 1 ? one : more}`;
export const rate = (value) => (value == null ? NONE : value > 0 && value < 10 ? tenths.format(value) : whole.format(value));
export const clock = (at) => times.format(at * 1000);
export const minute = (at) => minutes.format(at * 1000);
export const date = (at) => dates.format(at * 1000);

export function bytes(value) {
  if (value == null) return NONE;
  let unit = 0;
  while (value >= 999.5 && unit < 4) {
    value /= 1000;
    unit++;
  }
  return `${unit && value < 99.95 ? tenths.format(value) : whole.format(value)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

/** A duration in its two largest units. */
export function age(seconds) {
  if (seconds == null) return NONE;
  const rest = Math.max(0, Math.floor(seconds));
  if (rest < 60) return `${rest} s`;
  if (rest < 3600) return `${Math.floor(rest / 60)} min ${rest % 60} s`;
  if (rest < 86400) return `${Math.floor(rest / 3600)} h ${Math.floor((rest % 3600) / 60)} min`;
  return `${Math.floor(rest / 86400)} d ${Math.floor((rest % 86400) / 3600)} h`;
}

export const latency = (seconds) =>
  seconds == null ? NONE : seconds < 0.00995 ? `${tenths.format(seconds * 1000)} ms` : seconds < 0.9995 ? `${whole.format(seconds * 1000)} ms` : `${tenths.format(seconds)} s`;

/** "peer_closed" as "peer closed". */
export const words = (name) => String(name).replaceAll("_", " ").toLowerCase();

/** Who a peer is: its key, its subject, or its address. */
export const who = (row) => String(row.key ?? row.subject ?? row.address ?? NONE);

/** The colour of a cause or a code, beside its text. */
export const swatch = (series) => h("i", { class: "swatch", "data-series": series, "aria-hidden": "true" });
