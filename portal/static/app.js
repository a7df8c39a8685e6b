// The page: its frame (head, notices, time), and which view stands in it.

import { badge, fill, h, number } from "./dom.js";
import { store } from "./store.js";
import { overview } from "./overview.js";
import { trials } from "./trials.js";
import { trial } from "./trial.js";
import { figures } from "./figures.js";
import { log } from "./log.js";
import { config } from "./config.js";
import { experiments } from "./experiments.js";

// A view is a function (main, arguments) -> {update(), close()?}: it fills `main` and is told when the store changed.
const VIEWS = {
  overview: [overview, "Overview", "o"],
  trials: [trials, "Trials", "t"],
  figures: [figures, "Figures", "f"],
  log: [log, "Log", "l"],
  config: [config, "Config", "c"],
  experiments: [experiments, "Experiments", "e"],
};
const main = document.getElementById("main");
const top_ = document.getElementById("top");
const notice = document.getElementById("notice");
const time = document.getElementById("time");
let view = null;
let drawing = 0;

function theme(next) {
  const wanted = next ?? localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = wanted;
  if (next) localStorage.setItem("theme", next);
  return wanted;
}

function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  view?.close?.();
  main.replaceChildren();
  const [make] = name === "trial" ? [trial] : VIEWS[name] ?? VIEWS.overview;
  view = make(main, rest.map(decodeURIComponent));
  frame();
  if (store.status) view.update();
  main.focus({ preventScroll: true });
}

const dot = h("span.soft", { id: "connection" });
function frame() {
  const current = location.hash.slice(1).split("/")[0] || "overview";
  const status = store.status;
  fill(top_,
    h("div.bar", {},
      h("span.brand", {}, "tune"),
      h("span.mono", { id: "id" }, status?.id ?? ""),
      status?.name ? h("span", {}, status.name) : null,
      status ? badge(status.status) : null,
      status?.best ? h("span.soft", {}, "best ", h("b", { id: "best" }, number(status.best.value)), ` trial ${status.best.trial}`) : null,
      h("span.grow"),
      dot,
      h("button", { title: "Light or dark (d)", onclick: () => theme(theme() === "dark" ? "light" : "dark") }, "◐")),
    h("nav", { "aria-label": "Pages" }, Object.entries(VIEWS).map(([name, [, title]]) =>
      h("a", { href: `#${name}`, "aria-current": name === current || (name === "trials" && current === "trial") ? "page" : false }, title))));
  connection();
  document.title = status ? `${status.id} ${status.status} – tune` : "tune";
}

function connection() {
  const words = { live: "● live", connecting: "○ connecting", away: "○ away", locked: "○ locked" };
  fill(dot, store.at === null ? words[store.connection] : `◷ as of event ${store.at}`);
  const id = store.status?.id ?? "";
  const said = {
    away: ["The engine has ended or can't be reached. Go on with ", h("code", {}, `tune resume ${id} --port ${location.port}`),
      ", or look at it with ", h("code", {}, `tune view ${id} --port ${location.port}`), ". This page reconnects by itself."],
    locked: ["This page belongs to an earlier portal: open the link that tune printed."],
  }[store.connection];
  notice.hidden = !said;
  fill(notice, said ?? []);
}

const slider = h("input", {
  type: "range", min: "1", step: "1", "aria-label": "Show the experiment as it was after this event",
  oninput: () => {
    const wanted = Number(slider.value);
    fill(moment, `event ${wanted} of ${store.seq}`);
    clearTimeout(slider.wait);
    slider.wait = setTimeout(() => go(wanted), 150);
  },
});
const moment = h("span.mono", { id: "moment" });
const back = h("button", { onclick: () => go(null) }, "Now");
async function go(seq) {
  try {
    await store.show(seq === null || seq >= store.seq ? null : seq);
  } catch (error) {
    notice.hidden = false;
    fill(notice, error.message);
  }
}
function label() {
  slider.max = String(Math.max(store.seq, 1));
  if (store.at === null && document.activeElement !== slider) slider.value = slider.max;
  fill(moment, `event ${store.at ?? slider.value} of ${store.seq}`);
  back.disabled = store.at === null;
}

function update() {
  if (drawing) return;
  drawing = requestAnimationFrame(() => {
    drawing = 0;
    frame();
    label();
    view?.update();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
  const found = Object.entries(VIEWS).find(([, [, , key]]) => key === event.key);
  if (found) location.hash = found[0];
  else if (event.key === "d") theme(theme() === "dark" ? "light" : "dark");
  else if (event.key === "n") go(null);
});
theme();
fill(time, h("div.row", {}, h("span.soft", {}, "◷"), slider, moment, back));
addEventListener("hashchange", route);
store.addEventListener("change", update);
store.addEventListener("grown", label);
store.addEventListener("connection", () => { connection(); if (store.status) view?.update(); });
route();
store.start();
