// The event log, newest first; each line opens the whole event, and a click on its number shows the page as it was then.

import { card, fill, h } from "./dom.js";
import { ask, store } from "./store.js";

const PAGE = 200; // events that are read at once
const KEPT = 5000; // events that are kept, one after the other without a gap
const SHOWN = 600;

export function log(main) {
  const list = h("div", { id: "events" });
  const kind = h("input", { type: "search", name: "kind", placeholder: "Filter: a kind, a trial's number", "aria-label": "Filter", oninput: () => draw() });
  const more = h("button", { onclick: () => older() }, "Older");
  const said = h("span.soft", { role: "status", id: "read" });
  const check = h("button", { title: "Read the whole log, and check every event against its chain (tune verify)", onclick: () => verify() }, "Check the log");
  const sound = h("span", { role: "status", id: "verified" });
  fill(main, h("div.wide", {}, card("Events", h("div.row", {}, kind, said, check, sound), list, more)));
  const lines = new Map(); // the elements, by the event's number
  let events = []; // ascending, without a gap
  let reading = false;

  const newest = () => events.at(-1)?.seq ?? 0;
  const now = () => store.at ?? store.seq;

  async function older() {
    const before = events.length ? events[0].seq : now() + 1;
    await read(Math.max(before - 1 - PAGE, 0), before);
  }

  async function read(after, before) {
    if (reading || before - after < 2) return;
    reading = true;
    try {
      const found = await ask(`/api/events?after=${after}&before=${before}&limit=5000`);
      const apart = events.length && found.length && found[0].seq > newest() + 1;
      if (apart) lines.clear();
      events = (apart ? found : [...events, ...found]).sort((a, b) => a.seq - b.seq);
      if (found.length && found.at(-1).seq === newest()) events = events.slice(-KEPT);
      else events = events.slice(0, KEPT);
      draw();
    } catch (error) {
      fill(said, error.message);
    } finally {
      reading = false;
    }
    if (store.at === null && events.length && now() > newest()) update();
  }

  async function verify() {
    check.disabled = true;
    fill(sound, "reading …");
    try {
      const { ok, events: good, reason } = await ask("/api/verify");
      fill(sound, `${ok ? "ok" : "damaged"}: ${good} good events${reason ? ` (${reason})` : ""}`);
    } catch (error) {
      fill(sound, error.message);
    }
    check.disabled = false;
  }

  function line(one) {
    return h("details", { "data-seq": one.seq }, h("summary.mono", {},
      h("a", { href: "#log", title: "Show everything as it was after this event", onclick: (event) => { event.preventDefault(); store.show(one.seq); } }, String(one.seq)),
      ` ${new Date(one.wall_us / 1000).toLocaleTimeString()} ${one.kind}${one.trial === null ? "" : ` trial ${one.trial}`} `,
      h("span.soft", {}, JSON.stringify(one.body).slice(0, 200))), h("pre", {}, JSON.stringify(one, null, 1)));
  }

  function draw() {
    const word = kind.value.trim().toLowerCase();
    const kept = events.filter((one) => (store.at === null || one.seq <= store.at)
      && (!word || one.kind.toLowerCase().includes(word) || String(one.trial) === word)).slice(-SHOWN);
    const wanted = kept.reverse().map((one) => {
      if (!lines.has(one.seq)) lines.set(one.seq, line(one));
      return lines.get(one.seq);
    });
    const staying = new Set(wanted);
    for (const node of [...list.children]) if (!staying.has(node)) node.remove();
    let place = list.firstChild;
    for (const node of wanted) {
      if (node === place) place = place.nextSibling;
      else list.insertBefore(node, place);
    }
    fill(said, `${wanted.length} shown, events ${events[0]?.seq ?? 0} to ${newest()} read, ${store.seq} in all`);
    more.disabled = events.length > 0 && events[0].seq <= 1;
  }

  function update() {
    if (!events.length || (store.at !== null && events[0].seq > store.at)) {
      events = [];
      older();
    } else if (now() > newest()) read(Math.max(newest(), now() - 1000), now() + 1);
    else draw();
  }
  return { update };
}
