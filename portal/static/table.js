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
    this.lines = new Map();
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  setColumns(columns) {
    this.columns = columns;
    this.lines.clear();
    this.body.replaceChildren();
    this.setRows(this.rows);
  }

  setRows(rows) {
    const column = this.columns.find((one) => one.name === this.sorted.name) ?? this.columns[0];
    const keyed = rows.map((row) => [column.key(row), row]);
    keyed.sort(([a], [b]) => compare(a, b) * (this.sorted.up ? 1 : -1));
    this.rows = keyed.map(([, row]) => row);
    this.#heads();
    this.body.style.height = `${this.rows.length * HEIGHT}px`;
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
    this.#draw();
  }

  get template() {
    return this.columns.map((one) => `${one.width}px`).join(" ");
  }

  #heads() {
    this.head.style.gridTemplateColumns = this.template;
    fill(this.head, this.columns.map((one) => h("button", {
      role: "columnheader",
      "aria-sort": one.name === this.sorted.name ? (this.sorted.up ? "ascending" : "descending") : "none",
      class: one.numeric ? "num" : "",
      onclick: () => {
        this.sorted = { name: one.name, up: one.name === this.sorted.name ? !this.sorted.up : true };
        this.setRows(this.rows);
      },
    }, one.title, one.name === this.sorted.name ? (this.sorted.up ? " ▲" : " ▼") : "")));
  }

  #draw() {
    const top = this.element.scrollTop;
    const first = Math.max(Math.floor(top / HEIGHT) - SPARE, 0);
    const last = Math.min(Math.ceil((top + this.element.clientHeight) / HEIGHT) + SPARE, this.rows.length);
    for (const [index, line] of this.lines) {
      if (index < first || index >= last) {
        line.remove();
        this.lines.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      if (this.lines.has(index)) continue;
      const row = this.rows[index];
      const line = h("div.line", {
        role: "row",
        tabindex: "-1",
        style: { transform: `translateY(${index * HEIGHT}px)`, gridTemplateColumns: this.template },
        onclick: () => this.open(row),
      }, this.columns.map((one) => h(one.numeric ? "div.cell.num" : "div.cell", { role: "cell" }, one.show(row))));
      this.lines.set(index, line);
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

function compare(a, b) {
  const none = (value) => value === null || value === undefined;
  if (none(a) || none(b)) return none(a) - none(b);
  if (typeof a === "number" && typeof b === "number") return a - b;
  const left = String(a), right = String(b);
  return left < right ? -1 : left > right ? 1 : 0;
}
