// The config and the search space as the log holds them, and notes that people write.

import { card, fill, h } from "./dom.js";
import { ask, store } from "./store.js";

export function config(main) {
  const whole = h("pre", { id: "config" });
  const space = h("pre", { id: "space" });
  const text = h("textarea", { name: "notes", "aria-label": "Notes" });
  const said = h("span.soft", { role: "status" });
  const save = h("button", {
    onclick: async () => {
      try { await ask("/api/notes", { text: text.value }); fill(said, "kept"); }
      catch (error) { fill(said, error.message); }
    },
  }, "Keep");
  fill(main, card("Search space", space), card("Config", whole),
    h("div.wide", {}, card("Notes", text, h("div.row", {}, save, said))));
  ask("/api/notes").then((found) => { text.value = found.text; }, (error) => fill(said, error.message));
  let mark;
  return {
    update: async () => {
      const now = `${store.at} ${store.status.max_trial_number} ${store.status.trial_concurrency} ${store.status.status}`;
      if (now === mark) return;
      mark = now;
      try {
        const { search_space, ...rest } = await ask(`/api/config${store.query}`);
        fill(space, JSON.stringify(search_space, null, 2));
        fill(whole, JSON.stringify(rest, null, 2));
      } catch (error) {
        fill(whole, error.message);
      }
    },
  };
}
