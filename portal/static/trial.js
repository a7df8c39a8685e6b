// One trial: what it got and why, what it reported, what it wrote, where it ran, what came before and after it.

import { badge, card, fill, h, moment, number, pairs, s } from "./dom.js";
import { ask, store } from "./store.js";

export function trial(main, [text]) {
  const wanted = Number(text);
  const at = h("div.wide", { id: "trial" });
  fill(main, at);
  let shown = "";
  let asking = false;
  let again = false;
  const logs = new Logs(wanted);

  async function update() {
    const row = store.trials.get(wanted);
    const mark = JSON.stringify([row, store.at, store.commands]);
    if (mark === shown) return;
    if (asking) { again = true; return; }
    asking = true;
    try {
      const found = await ask(`/api/trials/${wanted}${store.query}`);
      shown = mark;
      draw(found);
    } catch (error) {
      fill(at, card(`Trial ${text}`, h("p", {}, error.message)));
    } finally {
      asking = false;
      if (again) { again = false; update(); }
    }
  }

  function draw(found) {
    const said = h("span.soft", { role: "status" });
    const kill = h("button.danger", {
      name: "kill", disabled: !store.commands || !["WAITING", "RUNNING"].includes(found.status),
      onclick: async () => {
        if (!confirm(`End trial ${found.number}?`)) return;
        try { await ask(`/api/trials/${found.number}/kill`, {}); fill(said, "it is being ended"); }
        catch (error) { fill(said, error.message); }
      },
    }, "Kill");
    const link = (number_) => h("a", { href: `#trial/${number_}` }, `trial ${number_} `);
    fill(at,
      h("div.row", {}, h("h1", {}, `Trial ${found.number}`), badge(found.status), h("span.mono.soft", {}, found.id), kill, said,
        h("span.grow"), h("a", { href: `#trial/${Math.max(found.number - 1, 0)}` }, "← before"), h("a", { href: `#trial/${found.number + 1}` }, "next →")),
      found.reason ? h("p", {}, found.reason) : null,
      h("div", { style: { display: "grid", gap: "1rem", gridTemplateColumns: "repeat(auto-fit, minmax(min(100%, 22rem), 1fr))" } },
        card("Where and when", pairs([["host", found.host], ["pid", found.pid], ["attempt", found.attempt], ["exit code", found.exit_code],
          ["created", moment(found.created)], ["started", moment(found.started)], ["ended", moment(found.ended)],
          ["continues", found.continues === null ? undefined : link(found.continues)],
          ["continued by", found.children.length ? h("span", {}, found.children.map(link)) : undefined],
          ["stdout", found.stdout], ["stderr", found.stderr]])),
        found.phases.map((phase) => card(found.phases.length > 1 ? `Phase ${phase.phase}` : "Parameters and results",
          h("div.row", {}, h("span.big", {}, phase.final !== null && typeof phase.final === "object" ? JSON.stringify(phase.final) : number(phase.final)), h("span.soft", {}, "final result")),
          h("pre", {}, JSON.stringify(phase.parameters, null, 1)),
          curve(phase.intermediate),
          phase.final_ignored.length ? h("p.soft", {}, `${phase.final_ignored.length} further final results were not counted`) : null)),
        card("Why these parameters", found.why.length
          ? found.why.map((one) => [h("p.soft", {}, found.why.length > 1 ? `phase ${one.phase}: ` : "", `the tuner had seen the log up to event ${one.seen}`), h("pre", {}, one.decision ? JSON.stringify(one.decision, null, 1) : "no record; tune why recomputes it")])
          : h("p.soft", {}, "No suggestion of a tuner."))),
      logs.element);
    logs.follow(found.status === "RUNNING");
  }
  return { update, close: () => logs.follow(false) };
}

/** The intermediate results as a curve. */
function curve(series) {
  const values = series.map((value) => (typeof value === "number" ? value : NaN));
  const finite = values.filter(Number.isFinite);
  if (finite.length < 2) return finite.length ? h("p.soft", {}, `one report: ${number(finite[0])}`) : null;
  const low = finite.reduce((a, b) => Math.min(a, b)), high = finite.reduce((a, b) => Math.max(a, b));
  const step = Math.max(1, Math.ceil(values.length / 2000));
  let pen = "M";
  let path = "";
  values.forEach((value, index) => {
    if (index % step && index !== values.length - 1) return;
    if (!Number.isFinite(value)) { pen = "M"; return; }
    path += `${pen}${((1000 * index) / (values.length - 1)).toFixed(1)} ${(110 - (100 * (value - low)) / (high - low || 1)).toFixed(1)}`;
    pen = "L";
  });
  return [s("svg", { class: "spark", viewBox: "0 0 1000 120", preserveAspectRatio: "none", role: "img", "aria-label": "intermediate results" }, s("path", { d: path })),
    h("div.soft", {}, `${values.length} reports, ${number(low)} to ${number(high)}, last ${number(series.at(-1))}`)];
}

/** stdout and stderr, read on while the trial runs. */
class Logs {
  constructor(number_) {
    this.number = number_;
    this.stream = "stdout";
    this.next = null;
    this.pre = h("pre", { id: "output" });
    this.buttons = h("div.row", {}, ["stdout", "stderr"].map((name) => h("button", { onclick: () => this.choose(name) }, name)));
    this.element = card("Output", this.buttons, this.pre);
    this.choose("stdout");
  }

  choose(name) {
    this.stream = name;
    this.next = null;
    this.pre.textContent = "";
    this.read();
  }

  async read() {
    try {
      const path = `/api/trials/${this.number}/log/${this.stream}?offset=${this.next ?? -65536}&limit=262144`;
      const found = await ask(path);
      if (this.next !== null && found.text === "") return;
      const down = this.pre.scrollTop + this.pre.clientHeight >= this.pre.scrollHeight - 4;
      this.pre.append(found.text || "(nothing)\n");
      this.next = found.next ?? 0;
      if (down) this.pre.scrollTop = this.pre.scrollHeight;
    } catch (error) {
      this.pre.textContent = error.message;
    }
  }

  follow(on) {
    clearInterval(this.timer);
    if (on) this.timer = setInterval(() => this.read(), 1000);
    else if (this.next !== null) this.read();
  }
}
