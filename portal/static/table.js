// A table of any number of rows: only the lines that can be seen are elements.

import { fill, h } from "./dom.js";

const HEIGHT = 30; // pixels of a line, as in style.css
const SPARE = 12; // lines beyond each edge

/** `columns`: [{name, title, width, numeric, show(row) -> text or Node, key(row) -> what it is sorted by}]. */
export class Table {
  constructor(columns, { open }) {
    this.columns = columns;
    this.open = open;
    this.rows = [];
    this.sorted = { name: columns[0].name, up: true };
    this.element = h("div.table", { role: "table", tabindex: "0", onscroll: () => this.#draw(), onkeydown: (e) => this.#key(e) });
    this.head = h("div.head", { role: "row" });
    this.body = h("div", { role: "rowgroup", style: { position: "relative" } });
    this.element.append(this.head, this.body);
    this.lines = new Map(); // what is drawn, by index
    this.shown = new WeakMap(); // the row of a line
    this.headed = "";
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  setColumns(columns) {
    this.columns = columns;
    this.lines.clear();
    this.body.replaceChildren();
    this.setRows(this.rows);
  }

  /** The rows in place of those before; a line whose row is the same object stays, with its focus. */
  setRows(rows) {
    const column = this.columns.find((one) => one.name === this.sorted.name) ?? this.columns[0];
    const keyed = rows.map((row) => [column.key(row), row]);
    const sign = this.sorted.up ? 1 : -1;
    keyed.sort(([a], [b]) => none(a) - none(b) || (none(a) ? 0 : sign * compare(a, b))); // what has no value comes last
    this.rows = keyed.map(([, row]) => row);
    this.#heads();
    this.body.style.height = `${this.rows.length * HEIGHT}px`;
    const focused = [...this.lines.values()].find((line) => line === document.activeElement);
    const number = focused && this.shown.get(focused).number;
    const kept = new Map([...this.lines.values()].map((line) => [this.shown.get(line), line]));
    this.lines.clear();
    this.#each((index, row) => {
      const line = kept.get(row);
      if (!line) return;
      kept.delete(row);
      line.style.transform = `translateY(${index * HEIGHT}px)`;
      this.lines.set(index, line);
    });
    for (const line of kept.values()) line.remove();
    this.#draw();
    if (focused && !focused.isConnected) [...this.lines.values()].find((line) => this.shown.get(line).number === number)?.focus({ preventScroll: true });
  }

  get template() {
    return this.columns.map((one) => `${one.width}px`).join(" ");
  }

  #heads() {
    this.head.style.gridTemplateColumns = this.template;
    const mark = JSON.stringify([this.columns.map((one) => one.title), this.sorted]);
    if (mark === this.headed) return;
    this.headed = mark;
    fill(this.head, this.columns.map((one) => h(one.numeric ? "button.num" : "button", {
      role: "columnheader",
      title: one.title,
      "aria-sort": one.name === this.sorted.name ? (this.sorted.up ? "ascending" : "descending") : "none",
      onclick: () => {
        this.sorted = { name: one.name, up: one.name === this.sorted.name ? !this.sorted.up : true };
        this.setRows(this.rows);
      },
    }, one.title, one.name === this.sorted.name ? (this.sorted.up ? " ▲" : " ▼") : "")));
  }

  /** The rows that can be seen, with their indices. */
  #each(act) {
    const top = this.element.scrollTop;
    const first = Math.max(Math.floor(top / HEIGHT) - SPARE, 0);
    const last = Math.min(Math.ceil((top + this.element.clientHeight) / HEIGHT) + SPARE, this.rows.length);
    for (let index = first; index < last; index++) act(index, this.rows[index]);
    return [first, last];
  }

  #draw() {
    const missing = [];
    const [first, last] = this.#each((index) => { if (!this.lines.has(index)) missing.push(index); });
    for (const [index, line] of this.lines) {
      if (index < first || index >= last) {
        line.remove();
        this.lines.delete(index);
      }
    }
    for (const index of missing) {
      const row = this.rows[index];
      const line = h("div.line", {
        role: "row",
        tabindex: "-1",
        style: { transform: `translateY(${index * HEIGHT}px)`, gridTemplateColumns: this.template },
        onclick: () => this.open(row),
      }, this.columns.map((one) => h(one.numeric ? "div.cell.num" : "div.cell", { role: "cell" }, one.show(row))));
      this.lines.set(index, line);
      this.shown.set(line, row);
      this.body.append(line);
    }
  }

  #key(event) {
    const page = Math.floor(this.element.clientHeight / HEIGHT) - 1;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const current = [...this.lines].find(([, line]) => line === document.activeElement)?.[0];
    if (event.key === "Enter" && current !== undefined) return this.open(this.rows[current]);
    if (!(event.key in steps) || !this.rows.length) return undefined;
    event.preventDefault();
    const next = Math.min(Math.max((current ?? -1) + steps[event.key], 0), this.rows.length - 1);
    const at = next * HEIGHT;
    if (at < this.element.scrollTop) this.element.scrollTop = at;
    if (at > this.element.scrollTop + this.element.clientHeight - 3 * HEIGHT) {
      this.element.scrollTop = at - this.element.clientHeight + 3 * HEIGHT;
    }
    this.#draw();
    this.lines.get(next)?.focus({ preventScroll: true });
    return undefined;
  }
}

function none(value) {
  return value === null || value === undefined;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  const left = String(a), right = String(b);
  return left < right ? -1 : left > right ? 1 : 0;
}
