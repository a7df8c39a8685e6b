// The event log, newest first; each line opens the whole event, and a click on its number shows the page as it was then.

import { card, fill, h } from "./dom.js";
import { ask, store } from "./store.js";

const PAGE = 200;

export function log(main) {
  const list = h("div", { id: "events" });
  const kind = h("input", { type: "search", name: "kind", placeholder: "Filter: a kind, a trial's number", oninput: () => draw() });
  const more = h("button", { onclick: () => older() }, "Older");
  const said = h("span.soft", { role: "status" });
  fill(main, h("div.wide", {}, card("Events", h("div.row", {}, kind, said), list, more)));
  let events = []; // ascending
  let newest = 0;
  let reading = false;

  async function older() {
    const before = events.length ? events[0].seq : (store.at ?? store.seq) + 1;
    const after = Math.max(before - 1 - PAGE, 0);
    await read(after, before);
  }

  async function read(after, before) {
    if (reading || before - after < 2) return;
    reading = true;
    try {
      const found = await ask(`/api/events?after=${after}&before=${before}&limit=5000`);
      events = [...events, ...found].sort((a, b) => a.seq - b.seq).slice(-5000);
      newest = Math.max(newest, events.at(-1)?.seq ?? 0);
      draw();
    } catch (error) {
      fill(said, error.message);
    } finally {
      reading = false;
    }
  }

  function draw() {
    const word = kind.value.trim().toLowerCase();
    const kept = events.filter((one) => (store.at === null || one.seq <= store.at)
      && (!word || one.kind.toLowerCase().includes(word) || String(one.trial) === word));
    fill(list, kept.slice(-600).reverse().map((one) => h("details", {}, h("summary.mono", {},
      h("a", { href: "#log", onclick: (event) => { event.preventDefault(); store.show(one.seq); } }, String(one.seq)),
      ` ${new Date(one.wall_us / 1000).toLocaleTimeString()} ${one.kind}${one.trial === null ? "" : ` trial ${one.trial}`} `,
      h("span.soft", {}, JSON.stringify(one.body).slice(0, 140))), h("pre", {}, JSON.stringify(one, null, 1)))));
    fill(said, `${kept.length} of ${events.length} read, ${store.seq} in all`);
    more.disabled = events.length > 0 && events[0].seq <= 1;
  }
  return {
    update: () => {
      const now = store.at ?? store.seq;
      if (!events.length) older();
      else if (now > newest) read(Math.max(newest, now - 1000), now + 1);
      else draw();
    },
  };
}
