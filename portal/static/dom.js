// Elements from data. Text is always text: nothing here, or anywhere in the page, parses HTML.

const SVG = "http://www.w3.org/2000/svg";
const heard = new WeakSet(); // elements with listeners: these are never made into others

/** An element: `h("a.badge", {href: "#x"}, "text", child, ...)`. Properties that begin with "on" are listeners;
 * `key` says which one it is among its neighbours (see `show`). */
export function h(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) {
      element.addEventListener(key.slice(2), value);
      heard.add(element);
    } else if (key === "key") element.dataset.key = value;
    else if (key === "value" || key === "checked" || key === "disabled") element[key] = value;
    else if (key === "style") Object.assign(element.style, value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/** An SVG element. */
export function s(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Put these children into an element in place of what it holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** The same, but what can stay stays: the focus, an open line, a link under a finger that is going down. What has a
 * `key` is the same element wherever it stands; the others are taken in their order. */
export function show(element, ...children) {
  const wanted = document.createDocumentFragment();
  append(wanted, children);
  merge(element, wanted);
  return element;
}

function merge(old, wanted) {
  const next = [...wanted.childNodes];
  const keys = new Set(next.map(key).filter(Boolean));
  for (const node of [...old.childNodes]) if (key(node) && !keys.has(key(node))) node.remove();
  const kept = new Map([...old.childNodes].filter(key).map((node) => [key(node), node]));
  let at = old.firstChild;
  for (const node of next) {
    let now = kept.get(key(node)) ?? null;
    kept.delete(key(node));
    if (!key(node) && at && !key(at)) now = at;
    if (now && now === at) at = at.nextSibling;
    else old.insertBefore(now ?? node, at);
    if (now) become(now, node);
  }
  while (at) {
    const over = at;
    at = at.nextSibling;
    over.remove();
  }
}

/** Make an element, or a text, into another one. */
function become(now, node) {
  if (now.isEqualNode(node)) return;
  if (now.nodeType === Node.TEXT_NODE && node.nodeType === Node.TEXT_NODE) now.data = node.data;
  else if (!alike(now, node)) now.replaceWith(node);
  else {
    for (const { name } of [...now.attributes]) if (!node.hasAttribute(name) && name !== "open") now.removeAttribute(name);
    for (const { name, value } of [...node.attributes]) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
    merge(now, node);
  }
}

function key(node) {
  return node.dataset?.key;
}

function alike(a, b) {
  return a.nodeType === Node.ELEMENT_NODE && a.nodeName === b.nodeName && !heard.has(a) && !heard.has(b);
}

/** A number for people: six digits; what is no number as JSON. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size < 1e-3 || size >= 1e9 ? String(Number(value.toPrecision(5)).toExponential()) : String(Number(value.toPrecision(6)));
}

/** A stretch of seconds for people. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.max(seconds, 0);
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A moment (ISO, UTC) on the clock of whoever looks. */
export function moment(iso) {
  return iso ? new Date(iso).toLocaleString() : "–";
}

/** A badge with a status. */
export function badge(status) {
  return h(`span.badge.${/^[A-Z_]+$/.test(status) ? status : "WAITING"}`, {}, status);
}

/** A card with a heading. */
export function card(title, ...children) {
  return h("section.card", {}, title ? h("h2", {}, title) : null, ...children);
}

/** Pairs of a name and a value. */
export function pairs(entries) {
  return h("dl", {}, entries.filter(([, value]) => value !== undefined)
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value instanceof Node ? value : number(value))]));
}

/** A small table: its heads, and rows of texts and nodes, whose first says which row it is; a number stands to the right. */
export function grid(heads, rows) {
  const cell = (value) => h(typeof value === "number" ? "td.num" : "td", {}, value instanceof Node ? value : number(value));
  return h("div.scroll", {}, h("table", {},
    h("thead", {}, h("tr", {}, heads.map((head, index) => h(rows.some((row) => typeof row[index] === "number") ? "th.num" : "th", {}, head)))),
    h("tbody", {}, rows.map((row) => h("tr", { key: row[0]?.textContent ?? row[0] }, row.map(cell))))));
}

/** A link to a trial. */
export function trialLink(number_) {
  return h("a", { href: `#trial/${number_}` }, `trial ${number_}`);
}

/** Parameters as one level of names: a nested choice's with dots between. */
export function flat(parameters, before = "", found = {}) {
  for (const [name, value] of Object.entries(parameters ?? {})) {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) flat(value, `${before}${name}.`, found);
    else found[before + name] = value;
  }
  return found;
}

/** Parameters for reading: pairs; the whole value in the tip. */
export function parameters(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return h("pre", {}, JSON.stringify(value));
  return h("dl.mono", {}, Object.entries(flat(value))
    .map(([name, one]) => [h("dt", {}, name), h("dd", { title: JSON.stringify(one) }, number(one))]));
}

/** A small curve: `lines` are [class, values] over 1..n; a gap where a value is no number. `dots`: values as points. */
export function spark(label, lines, dots = [], [low, high] = range([...lines.flatMap(([, values]) => values), ...dots])) {
  const most = Math.max(...lines.map(([, values]) => values.length), dots.length, 2);
  const x = (index) => ((1000 * index) / (most - 1)).toFixed(1);
  const y = (value) => (110 - (100 * (Math.min(Math.max(value, low), high) - low)) / (high - low || 1)).toFixed(1);
  const path = (values) => {
    const step = Math.max(1, Math.ceil(values.length / 2000));
    let pen = "M";
    let text = "";
    values.forEach((value, index) => {
      if (index % step && index !== values.length - 1) return;
      if (!Number.isFinite(value)) { pen = "M"; return; }
      text += `${pen}${x(index)} ${y(value)}`;
      pen = "L";
    });
    return text;
  };
  const step = Math.max(1, Math.ceil(dots.length / 2000));
  const points = dots.map((value, index) => (index % step || !Number.isFinite(value) ? "" : `M${x(index)} ${y(value)}h0`)).join("");
  return s("svg", { class: "spark", viewBox: "0 0 1000 120", preserveAspectRatio: "none", role: "img", "aria-label": label },
    points ? s("path", { class: "dots", d: points }) : null, lines.map(([kind, values]) => s("path", { class: kind, d: path(values) })));
}

/** The least and the greatest of what is finite. */
export function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  return [low, high];
}
