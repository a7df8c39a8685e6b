// The page: its frame (head, notices, time), and which view stands in it.

import { badge, fill, h, number, show } from "./dom.js";
import { store } from "./store.js";
import { overview } from "./overview.js";
import { trials } from "./trials.js";
import { trial } from "./trial.js";
import { figures } from "./figures.js";
import { hosts } from "./hosts.js";
import { log } from "./log.js";
import { config } from "./config.js";
import { experiments } from "./experiments.js";
import { api } from "./api.js";

// A view is a function (main, arguments) -> {update(), redraw?(), close?()}: it fills `main` and is told when the store
// changed, when the colours did, and when it goes.
const VIEWS = {
  overview: [overview, "Overview", "o"],
  trials: [trials, "Trials", "t"],
  figures: [figures, "Figures", "f"],
  hosts: [hosts, "Hosts", "h"],
  log: [log, "Log", "l"],
  config: [config, "Config", "c"],
  experiments: [experiments, "Experiments", "e"],
  api: [api, "API", "a"],
};
const KEYS = { d: "light or dark", ",": "one event back", ".": "one event on", n: "now", "?": "these keys" };
const MANY = 2000; // trials from which on a page is drawn less often than the portal tells
const main = document.getElementById("main");
const notice = document.getElementById("notice");
const dark = matchMedia("(prefers-color-scheme: dark)");
let view = null;
let drawing = 0;
let drawn = 0;

// -- light and dark ---------------------------------------------------------------------------------------------------
function theme(next) {
  if (next) localStorage.setItem("theme", next);
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
  view?.redraw?.();
}
const turn = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
dark.addEventListener("change", () => theme());

// -- the frame --------------------------------------------------------------------------------------------------------
const words = h("div.row.grow");
const dot = h("span.soft", { id: "connection" });
const links = Object.entries(VIEWS).map(([name, [, title, key]]) => h("a", { href: `#${name}`, title: `${title} (${key})` }, title));
fill(document.getElementById("top"),
  h("div.bar", {}, h("span.brand", {}, "tune"), words, dot,
    h("button", { title: "Keys (?)", "aria-label": "Keys", onclick: () => help() }, "?"),
    h("button", { title: "Light or dark (d)", "aria-label": "Light or dark", onclick: turn }, "◐")),
  h("nav", { "aria-label": "Pages" }, links));

function frame() {
  const current = location.hash.slice(1).split("/")[0] || "overview";
  const status = store.status;
  show(words,
    h("span.mono", { id: "id" }, status?.id ?? ""),
    status?.name ? h("span.name", {}, status.name) : null,
    status ? badge(status.status) : null,
    status?.best ? h("span.soft.best", {}, "best ", h("b", { id: "best" }, number(status.best.value)), " ", h("a", { href: `#trial/${status.best.trial}` }, `trial ${status.best.trial}`)) : null);
  Object.keys(VIEWS).forEach((name, index) => {
    const here = name === current || (name === "trials" && current === "trial");
    if (here) links[index].setAttribute("aria-current", "page");
    else links[index].removeAttribute("aria-current");
  });
  connection();
  document.title = status ? `${status.id} ${status.status} – tune` : "tune";
}

function connection() {
  const states = { live: "● live", connecting: "○ connecting", away: "○ away", locked: "○ locked" };
  show(dot, store.at === null ? states[store.connection] : `◷ as of event ${store.at}`);
  const id = store.status?.id ?? "";
  const said = {
    away: ["The engine has ended or can't be reached. Go on with ", h("code", {}, `tune resume ${id} --port ${location.port}`),
      ", or look at it with ", h("code", {}, `tune view ${id} --port ${location.port}`), ". This page reconnects by itself."],
    locked: ["This page belongs to an earlier portal: open the link that tune printed."],
  }[store.connection];
  notice.hidden = !said;
  show(notice, said ?? []);
}

function help() {
  const box = h("dialog", { onclose: () => box.remove() }, h("h2", {}, "Keys"),
    h("dl", {}, [...Object.values(VIEWS).map(([, title, key]) => [key, title]), ...Object.entries(KEYS)]
      .map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    h("p.soft", {}, "In the table: arrows, Page Up and Down, Home, End; Enter opens a trial."),
    h("button", { onclick: () => box.close() }, "Close"));
  document.body.append(box);
  box.showModal();
}

// -- the views --------------------------------------------------------------------------------------------------------
function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  view?.close?.();
  main.replaceChildren();
  const [make] = name === "trial" ? [trial] : VIEWS[name] ?? VIEWS.overview;
  view = make(main, rest.map(decoded));
  frame();
  if (store.status) view.update();
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  main.focus({ preventScroll: true });
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

/** Draw what has changed, once a frame at most; of very many trials four times a second. */
function update() {
  if (drawing) return;
  drawing = 1;
  const wait = store.at === null && store.trials.size > MANY ? Math.max(drawn + 250 - performance.now(), 0) : 0;
  setTimeout(() => requestAnimationFrame(() => {
    drawing = 0;
    frame();
    label();
    view?.update();
    drawn = performance.now();
  }), wait);
}

// -- the time ---------------------------------------------------------------------------------------------------------
const slider = h("input", {
  type: "range", min: "1", step: "1", "aria-label": "Show the experiment as it was after this event",
  oninput: () => { later(Number(slider.value)); },
});
const moment = h("span.mono", { id: "moment" });
const back = h("button", { onclick: () => go(null) }, "Now");
fill(document.getElementById("time"), h("div.row", {}, h("span.soft", { "aria-hidden": "true" }, "◷"), slider, moment, back));
let waiting = 0;
let asked = null; // the event whose state is on its way

function later(seq) {
  fill(moment, `event ${seq} of ${store.seq}`);
  clearTimeout(waiting);
  waiting = setTimeout(() => go(seq), 150);
}

async function go(seq) {
  asked = seq === null || seq >= store.seq ? null : seq;
  const mine = asked;
  if (mine !== null) fill(moment, `event ${mine} of ${store.seq} …`);
  try {
    await store.show(mine);
  } catch (error) {
    notice.hidden = false;
    fill(notice, error.message);
  }
  if (asked === mine) asked = null;
}

function label() {
  slider.max = String(Math.max(store.seq, 1));
  if (document.activeElement !== slider) slider.value = String(asked ?? store.at ?? store.seq);
  fill(moment, `event ${asked ?? store.at ?? store.seq} of ${store.seq}${asked === null ? "" : " …"}`);
  back.disabled = store.at === null && asked === null;
}

function step(by) {
  const seq = Math.min(Math.max((asked ?? store.at ?? store.seq) + by, 1), store.seq);
  slider.value = String(seq);
  go(seq);
}

// -- keys -------------------------------------------------------------------------------------------------------------
const DOES = { d: turn, n: () => go(null), ",": () => step(-1), ".": () => step(1), "?": help };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), textarea, select, dialog")) return;
  const found = Object.entries(VIEWS).find(([, [, , key]]) => key === event.key);
  if (found) location.hash = found[0];
  else DOES[event.key]?.();
});

theme();
addEventListener("hashchange", route);
store.addEventListener("change", update);
store.addEventListener("grown", label);
store.addEventListener("connection", () => { connection(); if (store.status) view?.update(); });
route();
store.start();
