// The figures, drawn by Plotly from what the portal computes: the same that tune.visualization gives.

import { card, fill, h } from "./dom.js";
import { ask, store } from "./store.js";

let loading = null;

/** Plotly, once a figure is wanted: it is long. */
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/static/plotly.min.js" });
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("Plotly can't be loaded: is the package plotly installed?")));
    document.head.append(script);
  });
  return loading;
}

export function figures(main, [wanted]) {
  const names = h("nav", { "aria-label": "Figures" });
  const options = h("div.row");
  const place = h("div.figure", { id: "figure" });
  const said = h("p.soft", { role: "status" });
  fill(main, h("div.wide", {}, card(null, names, options, said, place)));
  let current = wanted;
  let known = [];
  let chosen = {};
  let mark = "";
  let timer = 0;

  async function begin() {
    known = await ask("/api/figures");
    current = known.some((one) => one.name === current) ? current : known[0].name;
    draw();
  }

  function draw() {
    fill(names, known.map((one) => h("a", { href: `#figures/${one.name}`, "aria-current": one.name === current ? "page" : false }, one.title)));
    const figure = known.find((one) => one.name === current);
    fill(options, (figure?.options ?? []).map((option) => h("label", {}, option.title,
      h("select", { name: option.name, onchange: (event) => { chosen[option.name] = event.target.value; mark = ""; show(); } },
        option.values.map((value) => h("option", { value, selected: value === (chosen[option.name] ?? option.values[0]) }, value))))));
    show();
  }

  async function show() {
    const now = `${current} ${store.at} ${store.at === null ? store.status?.seq : ""} ${document.documentElement.dataset.theme}`;
    if (!known.length || now === mark) return;
    mark = now;
    try {
      const query = new URLSearchParams(chosen);
      if (store.at !== null) query.set("at", store.at);
      query.set("lines", "plain");
      const [Plotly, figure] = await Promise.all([plotly(), ask(`/api/figures/${current}?${query}`)]);
      const style = getComputedStyle(document.documentElement);
      const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
      const layout = { ...figure.layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink }, autosize: true };
      for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) layout[axis] = { gridcolor: line, zerolinecolor: line, ...layout[axis] };
      // Plotly's WebGL traces compile code as they run, which the content policy forbids: the plain ones do as well
      for (const trace of figure.data) if (trace.type === "scattergl") trace.type = "scatter";
      await Plotly.react(place, figure.data, layout, { responsive: true, displaylogo: false });
      fill(said, figure.note ?? "");
    } catch (error) {
      fill(said, error.message);
    }
  }
  begin().catch((error) => fill(said, error.message));
  return {
    update: () => { // a figure costs more than a number: at most one in two seconds
      if (!timer) timer = setTimeout(() => { timer = 0; show(); }, store.at === null ? 2000 : 0);
    },
    close: () => { clearTimeout(timer); if (window.Plotly) window.Plotly.purge(place); },
  };
}
