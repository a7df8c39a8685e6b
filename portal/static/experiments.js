// All experiments of this home, and another one beside this one.

import { badge, card, fill, grid, h, number, spark } from "./dom.js";
import { ask, store } from "./store.js";

export function experiments(main) {
  const list = h("div.wide");
  const other = h("div.wide", { id: "compared" });
  fill(main, list, other);
  async function begin() {
    const found = await ask("/api/experiments");
    fill(list, card("Experiments", grid(["id", "", "name", "best", "trials", "", ""], found.map((one) => [
      h("span.mono", {}, one.id), badge(one.status), one.name ?? " ",
      one.pareto ? `${one.pareto.length} on the front` : one.best ? one.best.value : "no result",
      Object.values(one.counts).reduce((sum, n) => sum + n, 0),
      one.engine_pid ? `runs${one.port ? `, portal at ${one.port}` : ""}` : " ",
      one.id === store.status?.id ? "this one" : h("button", { onclick: () => compare(one.id) }, "Compare")])),
    h("p.soft", {}, "Another one's own page opens with ", h("code", {}, "tune view ID --port 0"), ".")));
  }
  async function compare(id) {
    try {
      const found = await ask(`/api/compare?with=${encodeURIComponent(id)}`);
      const curves = found.curves.map((curve) => curve.map((one) => one.best ?? NaN));
      const differences = Object.entries(found.differences);
      fill(other, card(`${found.ids[0]} beside ${found.ids[1]}`,
        curves.some((curve) => curve.length) ? spark("the best so far of both", [["best", curves[0]], ["other", curves[1]]]) : null,
        h("p.soft", {}, `The best so far: ${found.ids[0]} is green, ${found.ids[1]} yellow.`),
        grid(["", ...found.ids], [["best", ...found.best.map((one) => (one ? one.value : null))],
          ...differences.map(([name, pair]) => [name, ...pair.map((one) => h("span.mono", {}, JSON.stringify(one)))])])));
      other.scrollIntoView({ block: "nearest" });
    } catch (error) {
      fill(other, card("Compare", h("p", {}, error.message)));
    }
  }
  begin().catch((error) => fill(list, card("Experiments", h("p", {}, error.message))));
  return { update: () => {} };
}
