// The figures, drawn by Plotly from what the portal computes: the same that tune.visualization gives.

import { card, fill, h } from "./dom.js";
import { parallel } from "./parallel.js";
import { ask, store } from "./store.js";

const PACE = 2000; // milliseconds: a figure costs more than a number
let loading = null;

/** Plotly, once a figure is wanted: it is long. */
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/static/plotly.min.js" });
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      loading = null;
      reject(new Error("Plotly can't be loaded: is the package plotly installed?"));
    });
    document.head.append(script);
  });
  return loading;
}

export function figures(main, [wanted]) {
  const names = h("nav", { "aria-label": "Figures" });
  const options = h("div.row");
  const said = h("p.soft", { role: "status" });
  let place = h("div.figure", { id: "figure" });
  fill(main, h("div.wide", {}, card(null, names, options, said, place)));
  let current = wanted;
  let known = [];
  let chosen = {};
  let mark = "";
  let timer = 0;
  let closed = false;

  async function begin() {
    known = await ask("/api/figures");
    current = known.some((one) => one.name === current) ? current : known[0].name;
    fill(names, known.map((one) => h("a", { href: `#figures/${one.name}`, "aria-current": one.name === current ? "page" : false }, one.title)));
    const figure = known.find((one) => one.name === current);
    fill(options, (figure?.options ?? []).map((option) => h("label", {}, option.title,
      h("select", { name: option.name, onchange: (event) => { chosen[option.name] = event.target.value; draw(); } },
        option.values.map((value) => h("option", { value, selected: value === (chosen[option.name] ?? option.values[0]) }, value))))));
    await draw();
  }

  async function draw() {
    const now = `${current} ${store.at} ${store.at === null ? store.status?.seq : ""} ${document.documentElement.dataset.theme} ${JSON.stringify(chosen)}`;
    if (!known.length || now === mark) return;
    mark = now;
    try {
      const query = new URLSearchParams(chosen);
      if (store.at !== null) query.set("at", store.at);
      const figure = await ask(`/api/figures/${current}?${query}`);
      if (closed || mark !== now) return;
      if (figure.data[0]?.type === "parcoords") fill(place, parallel(figure.data[0]));
      else await plot(figure);
      fill(said, figure.note ?? "");
    } catch (error) {
      if (mark === now) mark = ""; // it is tried again with the next event
      fill(said, error.message);
    }
  }

  async function plot(figure) {
    const Plotly = await plotly();
    if (closed) return;
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
    const narrow = place.clientWidth < 600;
    const layout = {
      margin: { l: narrow ? 46 : 70, r: narrow ? 10 : 30, t: 16, b: 52 },
      ...(narrow ? { legend: { orientation: "h", y: 1.02, yanchor: "bottom" } } : {}),
      ...figure.layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink }, autosize: true,
    };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) layout[axis] = { gridcolor: line, zerolinecolor: line, automargin: true, ...layout[axis] };
    // Plotly's WebGL traces compile code as they run, which the content policy forbids: the plain ones do as well
    for (const trace of figure.data) if (trace.type === "scattergl") trace.type = "scatter";
    await Plotly.react(place, figure.data, layout, { responsive: true, displaylogo: false });
  }

  begin().catch((error) => fill(said, error.message));
  return {
    update: () => {
      if (!timer) timer = setTimeout(() => { timer = 0; known.length ? draw() : begin().catch((error) => fill(said, error.message)); }, store.at === null ? PACE : 0);
    },
    redraw: () => draw(),
    close: () => { closed = true; clearTimeout(timer); if (window.Plotly) window.Plotly.purge(place); },
  };
}
