// All experiments of this home, and another one beside this one.

import { badge, card, fill, h, number, s } from "./dom.js";
import { ask, store } from "./store.js";

export function experiments(main) {
  const list = h("div.wide");
  const other = h("div.wide");
  fill(main, list, other);
  async function begin() {
    const found = await ask("/api/experiments");
    fill(list, card("Experiments", h("div", { style: { overflowX: "auto" } }, found.map((one) => h("div.row", { style: { padding: ".2rem 0" } },
      h("span.mono", { style: { minWidth: "7rem" } }, one.id), badge(one.status),
      h("span", { style: { minWidth: "6rem" } }, one.best ? number(one.best.value) : "no result"),
      h("span.soft", {}, one.name ?? ""),
      h("span.soft", {}, one.engine_pid ? "runs" : ""),
      one.id === store.status?.id ? h("span.soft", {}, "this one") : h("button", { onclick: () => compare(one.id) }, "Compare")))),
      h("p.soft", {}, "Another one's own page opens with ", h("code", {}, "tune view ID --port 0"), ".")));
  }
  async function compare(id) {
    try {
      const found = await ask(`/api/compare?with=${encodeURIComponent(id)}`);
      const all = found.curves.flat().map((one) => one.best).filter(Number.isFinite);
      const low = Math.min(...all), high = Math.max(...all), most = Math.max(...found.curves.map((curve) => curve.length), 2);
      const path = (curve) => curve.map((one, index) => `${index ? "L" : "M"}${(1000 * index) / (most - 1)} ${110 - (100 * (one.best - low)) / (high - low || 1)}`).join("");
      fill(other, card(`${found.ids[0]} (green) beside ${found.ids[1]}`,
        all.length ? s("svg", { class: "spark", viewBox: "0 0 1000 120", preserveAspectRatio: "none" },
          s("path", { class: "best", d: path(found.curves[0]) }), s("path", { d: path(found.curves[1]) })) : null,
        h("p", {}, "best: ", found.best.map((one) => (one ? number(one.value) : "none")).join(" and ")),
        Object.entries(found.differences).map(([name, pair]) => h("p", {}, h("b", {}, name), " ", h("span.mono", {}, pair.map((one) => JSON.stringify(one)).join("  →  "))))));
    } catch (error) {
      fill(other, card("Compare", h("p", {}, error.message)));
    }
  }
  begin().catch((error) => fill(list, card("Experiments", h("p", {}, error.message))));
  return { update: () => {} };
}
