// All trials in a table: sort, filter, choose columns; a line leads to its trial.

import { badge, fill, flat, h, moment, number } from "./dom.js";
import { store } from "./store.js";
import { Table } from "./table.js";

const CHOSEN = "trial-columns";

const FIXED = [
  { name: "number", title: "No", width: 70, numeric: true, show: (row) => row.number, key: (row) => row.number },
  { name: "status", title: "Status", width: 140, show: (row) => badge(row.status), key: (row) => row.status },
  { name: "value", title: "Result", width: 110, numeric: true, show: (row) => number(row.value), key: (row) => row.value },
  { name: "last", title: "Last report", width: 110, numeric: true, show: (row) => number(row.last), key: (row) => row.last },
  { name: "intermediates", title: "Reports", width: 80, numeric: true, show: (row) => row.intermediates, key: (row) => row.intermediates },
  { name: "id", title: "Id", width: 80, show: (row) => row.id, key: (row) => row.id },
  { name: "attempt", title: "Attempt", width: 80, numeric: true, show: (row) => row.attempt, key: (row) => row.attempt },
  { name: "host", title: "Host", width: 110, show: (row) => row.host ?? "–", key: (row) => row.host },
  { name: "started", title: "Started", width: 180, show: (row) => moment(row.started), key: (row) => row.started },
  { name: "took", title: "Took s", width: 90, numeric: true, show: (row) => number(took(row)), key: took },
  { name: "reason", title: "Reason", width: 320, show: (row) => row.reason, key: (row) => row.reason },
];
const FIRST = ["number", "status", "value", "intermediates", "took", "reason"];

function took(row) {
  return row.started && row.ended ? Math.round((new Date(row.ended) - new Date(row.started)) / 100) / 10 : null;
}

/** The parts of results, and the parameters, of nested choices too, as columns. */
function parameterColumns(rows) {
  const names = new Set();
  for (const row of rows.slice(0, 500)) for (const name of Object.keys(flat(row.parameters))) names.add(name);
  return [...resultColumns(rows), ...[...names].slice(0, 100).map((name) => ({
    name: `p:${name}`, title: name, width: Math.min(Math.max(110, name.length * 9), 220), numeric: true,
    show: (row) => number(flat(row.parameters)[name]), key: (row) => flat(row.parameters)[name],
  }))];
}

/** What a final result holds besides the number that counts, as columns: the objectives, or what else was reported. */
function resultColumns(rows) {
  const names = new Set();
  for (const { final } of rows.slice(0, 500)) {
    if (final !== null && typeof final === "object") for (const name of Object.keys(final)) if (name !== "default") names.add(name);
  }
  return [...names].slice(0, 20).map((name) => ({
    name: `p:result ${name}`, title: name, width: Math.min(Math.max(110, name.length * 9), 220), numeric: true,
    show: (row) => number(row.final?.[name]), key: (row) => row.final?.[name],
  }));
}

export function trials(main) {
  const filter = h("input", { type: "search", name: "filter", placeholder: "Filter: a word, a status, lr<0.1", size: "32", "aria-label": "Filter", oninput: () => update() });
  const count = h("span.soft", { id: "count" });
  const saved = h("a", { download: "", title: "Every counted result with its parameters, as tune export writes it" }, "Save as csv");
  const chooser = h("details", {}, h("summary", {}, "Columns"));
  const chosen = new Set(JSON.parse(localStorage.getItem(CHOSEN) ?? "null") ?? FIRST);
  let all = [];
  let signature = "";
  const columns = () => all.filter((one) => chosen.has(one.name) || (one.name.startsWith("p:") && !chosen.has(`-${one.name}`)));
  const table = new Table(FIXED.filter((one) => chosen.has(one.name)), { open: (row) => { location.hash = `trial/${row.number}`; } });
  table.sorted = { name: "number", up: false };
  fill(main, h("div.wide", {}, h("div.row", {}, filter, count, saved, chooser)), h("div.wide", {}, table.element));

  function choose(name, on) {
    const mark = name.startsWith("p:") ? `-${name}` : name;
    if (on !== name.startsWith("p:")) chosen.add(mark);
    else chosen.delete(mark);
    localStorage.setItem(CHOSEN, JSON.stringify([...chosen]));
    table.setColumns(columns());
  }

  function update() {
    const rows = [...store.trials.values()];
    all = [...FIXED.slice(0, 5), ...parameterColumns(rows), ...FIXED.slice(5)];
    const now = all.map((one) => one.name).join();
    if (now !== signature) {
      signature = now;
      fill(chooser, h("summary", {}, "Columns"), h("div.row", {}, all.map((one) => h("label", {},
        h("input", { type: "checkbox", checked: columns().includes(one), onchange: (event) => choose(one.name, event.target.checked) }), one.title))));
      table.setColumns(columns());
    }
    const kept = rows.filter(matcher(filter.value));
    table.setRows(kept);
    saved.href = `/api/export/table${store.query}`;
    fill(count, `${kept.length} of ${rows.length} trials`);
  }
  return { update };
}

/** What a filter lets through: words that stand anywhere in the row, and conditions on a column or parameter. */
function matcher(text) {
  const tests = text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const condition = /^([\w.]+)(<=|>=|<|>|=)(.+)$/.exec(word);
    if (!condition) return (row) => JSON.stringify(row).toLowerCase().includes(word.toLowerCase());
    const [, name, sign, wanted] = condition;
    return (row) => {
      const value = name in row ? row[name] : flat(row.parameters)[name];
      if (value === undefined || value === null) return false;
      const [a, b] = typeof value === "number" ? [value, Number(wanted)] : [String(value), wanted];
      return { "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b, "=": a === b }[sign];
    };
  });
  return (row) => tests.every((test) => test(row));
}
