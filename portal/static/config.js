// The config and the search space as the log holds them, and notes that people write.

import { card, fill, grid, h } from "./dom.js";
import { ask, store } from "./store.js";

export function config(main) {
  const whole = h("pre", { id: "config" });
  const space = h("div", { id: "space" });
  const text = h("textarea", { name: "notes", "aria-label": "Notes" });
  const said = h("span.soft", { role: "status" });
  const save = h("button", {
    onclick: async () => {
      try { await ask("/api/notes", { text: text.value }); fill(said, "kept"); }
      catch (error) { fill(said, error.message); }
    },
  }, "Keep");
  fill(main, h("div.wide", {}, card("Search space", space)), h("div.wide", {}, card("Notes", text, h("div.row", {}, save, said))),
    h("div.wide", {}, card("Config", whole)));
  ask("/api/notes").then((found) => { text.value = found.text; }, (error) => fill(said, error.message));
  let mark;
  return {
    update: async () => {
      save.disabled = !store.commands && store.status.readonly;
      const now = `${store.at} ${store.status.max_trial_number} ${store.status.trial_concurrency} ${store.status.status}`;
      if (now === mark) return;
      mark = now;
      try {
        const { search_space, ...rest } = await ask(`/api/config${store.query}`);
        fill(space, lines(search_space));
        fill(whole, JSON.stringify(rest, null, 2));
      } catch (error) {
        mark = undefined;
        fill(whole, error.message);
      }
    },
  };
}

/** The search space as a table, a nested choice's parameters below it; one of a kind of its own as JSON. */
function lines(space) {
  const rows = [];
  const walk = (part, before) => {
    for (const [name, one] of Object.entries(part)) {
      if (one === null || typeof one !== "object" || !("_type" in one) || !Array.isArray(one._value)) throw new TypeError(name);
      const nested = one._value.filter((value) => value !== null && typeof value === "object" && "_name" in value);
      rows.push([before + name, one._type, h("span.mono", {}, (nested.length ? one._value.map((value) => value?._name ?? value) : one._value).map((value) => JSON.stringify(value)).join(", "))]);
      for (const { _name, ...inner } of nested) walk(inner, `${before}${name}.${_name}.`);
    }
  };
  try { walk(space, ""); } catch { return h("pre", {}, JSON.stringify(space, null, 2)); }
  return grid(["parameter", "type", "values"], rows);
}
