/** A table of which only the rows in sight exist, however many it has. */

import { h, mark } from "./dom.js";

/** Rows that exist above and below those in sight. */
const MARGIN = 6;
/** Seconds for which the order is held after the pointer has moved over the rows. */
const HOLD = 4;

const classes = ({ name, number }) => (number ? `${name} number` : name);

/**
 * `columns` are `{ name, label, title, sort, number, opens }`; a cell has the class of its column. `fill(cells, item)` writes an
 * item into the cells, by name. The column that `opens` has the button that opens the row; arrow keys move over these
 * buttons, so that the whole table is one stop of the Tab key.
 */
export class List {
  #columns;
  #fill;
  #open;
  #range = () => {};
  #rows = new Map();
  #spare = [];
  #count = 0;
  #get = () => undefined;
  #active = 0;
  /** Whether a row had the focus when it was opened: it comes back when the window is closed. */
  #opened = false;
  #moved = -Infinity;
  #scheduled = false;

  constructor(place, { label, columns, fill, open, sort }) {
    this.#columns = columns;
    this.#fill = fill;
    this.#open = open;
    this.heads = columns.map((column) =>
      h(
        "div",
        { role: "columnheader", class: classes(column), "aria-sort": column.sort && "none" },
        column.sort ? h("button", { type: "button", title: column.title, click: () => sort(column) }, column.label) : column.label,
      ),
    );
    this.body = h("div", { role: "rowgroup", class: "rows" });
    this.empty = h("p", { class: "empty soft" });
    this.scroller = h("div", { class: "scroller" }, h("div", { role: "table", "aria-label": label }, h("div", { role: "rowgroup", class: "head" }, h("div", { role: "row", class: "row" }, this.heads)), this.body), this.empty);
    this.probe = h("div", { class: "row probe", "aria-hidden": "true" });
    place.append(this.scroller, this.probe);
    this.table = this.scroller.firstChild;
    this.scroller.addEventListener("scroll", () => this.#schedule(), { passive: true });
    this.scroller.addEventListener("pointermove", () => (this.#moved = performance.now()), { passive: true });
    this.body.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    this.body.addEventListener("focusin", (event) => (this.#active = this.#rowOf(event.target)?.index ?? this.#active));
    new ResizeObserver(() => this.draw()).observe(this.scroller);
  }

  /** Call `listener` when other rows come into sight. */
  set onrange(listener) {
    this.#range = listener;
  }

  /** Whether rows must stay where they are: somebody points at one, or is about to, or the focus is there. */
  get held() {
    return performance.now() - this.#moved < HOLD * 1000 || this.#focused;
  }

  /** Whether the focus is on a row, or comes back to one when the window is closed that is open. */
  get #focused() {
    return this.body.contains(document.activeElement) || (this.#opened && !!document.querySelector("dialog[open]"));
  }

  /** The indices of the rows in sight: the first, and the one after the last. */
  get sight() {
    const height = this.#height();
    const top = this.scroller.scrollTop;
    const first = Math.max(0, Math.floor(top / height));
    return [first, Math.min(this.#count, Math.ceil((top + this.scroller.clientHeight) / height))];
  }

  /** Show `count` items; `get(index)` returns one, or undefined if it is not known yet. */
  show(count, get) {
    this.#count = count;
    this.#get = get;
    mark(this.table, "aria-rowcount", count + 1);
    const height = `${count * this.#height()}px`;
    if (this.body.style.height !== height) this.body.style.height = height;
    this.draw();
  }

  top() {
    this.#active = 0;
    this.scroller.scrollTop = 0;
  }

  #height() {
    return this.probe.offsetHeight || 36;
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.draw();
      this.#range();
    });
  }

  draw() {
    if (!this.scroller.offsetParent) return;
    const height = this.#height();
    const total = `${this.#count * height}px`;
    if (this.body.style.height !== total) this.body.style.height = total;
    let [first, end] = this.sight;
    first = Math.max(0, first - MARGIN);
    end = Math.min(this.#count, end + MARGIN);
    this.#active = Math.min(this.#active, Math.max(0, this.#count - 1));
    const wanted = new Set();
    for (let index = first; index < end; index++) wanted.add(index);
    // The focus must not be lost, or come to another row, when its row is scrolled away.
    if (this.#focused && this.#count) wanted.add(this.#active);
    // One row can be reached with the Tab key: the active one, or the first in sight.
    const stop = wanted.has(this.#active) ? this.#active : Math.min(this.sight[0], end - 1);
    for (const [index, row] of this.#rows)
      if (!wanted.has(index)) {
        this.#rows.delete(index);
        row.element.remove();
        this.#spare.push(row);
      }
    for (const index of wanted) {
      let row = this.#rows.get(index);
      if (!row) {
        row = this.#spare.pop() ?? this.#make();
        this.#rows.set(index, row);
        row.index = index;
        row.element.style.transform = `translateY(${index * height}px)`;
        row.height = height;
        mark(row.element, "aria-rowindex", index + 2);
        this.#insert(row);
      } else if (row.height !== height) {
        row.element.style.transform = `translateY(${index * height}px)`;
        row.height = height;
      }
      const item = this.#get(index);
      row.item = item;
      row.element.classList.toggle("pending", !item);
      row.element.classList.toggle("odd", index % 2 === 1);
      row.button.tabIndex = index === stop ? 0 : -1;
      if (item) this.#fill(row.cells, item, row.element);
      else for (const cell of Object.values(row.cells)) if (cell.textContent) cell.replaceChildren();
    }
    this.#spare.length = Math.min(this.#spare.length, 40);
  }

  /** Into the order of the document, which is that of the Tab key and of screen readers. */
  #insert(row) {
    let after = null;
    for (const other of this.#rows.values()) if (other.index > row.index && (!after || other.index < after.index) && other.element.parentNode) after = other;
    this.body.insertBefore(row.element, after?.element ?? null);
  }

  #make() {
    const cells = {};
    const button = h("button", { type: "button", class: "open", tabindex: "-1" });
    const made = this.#columns.map((column) => {
      const cell = h("div", { role: "cell", class: classes(column), "data-label": column.label });
      cells[column.name] = column.opens ? button : cell;
      if (column.opens) cell.append(button);
      return cell;
    });
    return { cells, button, element: h("div", { role: "row", class: "row" }, made), index: -1, item: undefined, height: 0 };
  }

  #rowOf(target) {
    const element = target instanceof Element && target.closest(".row");
    for (const row of this.#rows.values()) if (row.element === element) return row;
  }

  #click(event) {
    // A selection of text is no click.
    if (String(getSelection()) && !event.target.closest("button")) return;
    const row = this.#rowOf(event.target);
    if (!row?.item) return;
    this.#active = row.index;
    this.#opened = this.body.contains(document.activeElement);
    this.#open(row.item, row.button);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.#height()) - 2);
    const row = this.#rowOf(event.target);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (!row || step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.#count - 1, row.index + step)));
  }

  /** Bring a row into sight, and the focus to its button. */
  focus(index) {
    const height = this.#height();
    const head = this.heads[0].parentElement.offsetHeight;
    const { scrollTop, clientHeight } = this.scroller;
    this.#active = index;
    if (index * height < scrollTop) this.scroller.scrollTop = index * height;
    else if ((index + 1) * height + head > scrollTop + clientHeight) this.scroller.scrollTop = (index + 1) * height + head - clientHeight;
    this.draw();
    this.#rows.get(index)?.button.focus({ preventScroll: true });
    this.draw();
    this.#range();
  }
}
