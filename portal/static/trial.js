// One trial: what it got and why, what it reported, what it wrote, where it ran, what came before and after it.

import { badge, card, fill, h, moment, number, pairs, parameters, range, show, spark, trialLink } from "./dom.js";
import { ask, over, store } from "./store.js";

const STOPS = { assessor: "the assessor", user: "somebody", stop: "the end of the experiment" };

export function trial(main, [text]) {
  const wanted = Number(text);
  const at = h("div.wide.stack", { id: "trial" });
  fill(main, at);
  const said = h("span.soft", { role: "status" });
  const kill = h("button.danger", {
    name: "kill",
    onclick: async () => {
      if (!confirm(`End trial ${wanted}?`)) return;
      try { await ask(`/api/trials/${wanted}/kill`, {}); fill(said, "it is being ended"); }
      catch (error) { fill(said, error.message); }
    },
  }, "Kill");
  const logs = new Logs(wanted);
  const head = h("div");
  const body = h("div.contents");
  const why = h("section.card", {}, h("h2", {}, "Why"), h("p.soft", {}, "…"));
  let shown = "";
  let explained = "";
  let asking = false;
  let again = false;

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
      fill(at, card(`Trial ${text}`, h("p", {}, error.message), store.trials.size ? h("p", {}, trialLink(Math.max(...store.trials.keys())), " is the last.") : null));
    } finally {
      asking = false;
      if (again) { again = false; update(); }
    }
  }

  function draw(found) {
    if (!head.isConnected) fill(at, head, h("div.row", {}, kill, said), h("div.cards", {}, body, why), logs.element);
    kill.disabled = !store.commands || over(found);
    kill.parentElement.hidden = over(found) && !said.textContent;
    show(head,
      h("div.row", {}, h("h1", {}, `Trial ${found.number}`), badge(found.status), h("span.mono.soft", {}, found.id), h("span.grow"),
        found.number ? h("a", { href: `#trial/${found.number - 1}`, rel: "prev" }, "← before") : null, h("a", { href: `#trial/${found.number + 1}`, rel: "next" }, "next →")),
      found.reason ? h("pre", {}, found.reason) : null);
    const lineage = [
      ["continues", found.continues === null ? undefined : trialLink(found.continues)],
      ["continued by", found.children.length ? h("span.row", {}, found.children.map(trialLink)) : undefined],
    ];
    show(body,
      found.phases.map((phase) => card(found.phases.length > 1 ? `Phase ${phase.phase}` : "Parameters and result",
        final(phase.final),
        phase.violation ? h("p", {}, `It fails the outcome constraints by ${number(phase.violation)}.`) : null,
        parameters(phase.parameters),
        curve(phase.intermediate),
        phase.final_ignored.length ? h("p.soft", {}, `${phase.final_ignored.length} further final results were not counted`) : null)),
      card("Where and when", pairs([["host", found.host], ["pid", found.pid], ["attempt", found.attempt], ["exit code", found.exit_code],
        ["created", moment(found.created)], ["started", moment(found.started)], ["ended", moment(found.ended)], ...lineage,
        ["stdout", found.stdout], ["stderr", found.stderr]])));
    logs.follow(found.status === "RUNNING");
    explain(found);
  }

  /** Asked for when something about it has changed, and drawn when it has come: it may take long. */
  async function explain(found) {
    const mark = JSON.stringify([found.phases.length, found.status, found.attempt, store.at]);
    if (mark === explained) return;
    explained = mark;
    let told;
    try { told = await ask(`/api/trials/${wanted}/why${store.query}`); }
    catch (error) {
      if (error.code !== 404) { show(why, h("h2", {}, "Why"), h("p.soft", {}, error.message)); return; }
      told = { phases: (found.why ?? []).map((one) => ({ ...one, record: one.decision, note: one.decision ? "" : "the log holds no record" })), stops: [], ends: [] };
    }
    if (mark === explained) show(why, reasons(told));
  }
  return { update, close: () => logs.follow(false) };
}

/** Why it has its parameters, who stopped it and why. */
function reasons(told) {
  const several = told.phases.length > 1;
  return [h("h2", {}, "Why"),
    told.phases.map((one) => [
      h("p.soft", {}, several ? `Phase ${one.phase}: ` : "", one.ask === null ? one.note : [
        told.tuner ? `proposed by ${told.tuner}` : "proposed by the tuner", one.seen ? `, which had seen the log up to event ${one.seen}` : "",
        one.knew ? ` (${Object.entries(one.knew).filter(([, n]) => n).map(([name, n]) => `${number(n)} ${name}`).join(", ") || "it knew nothing yet"})` : ""]),
      one.parents?.length ? h("p", {}, "Made from ", one.parents.map((parent) => [trialLink(parent), " "])) : null,
      one.budget ? h("p", {}, `Budget ${number(one.budget)}`) : null,
      one.record ? parameters(one.record) : one.ask !== null && one.note ? h("p.soft", {}, one.note) : null]),
    told.phases.length ? null : h("p.soft", {}, "No suggestion yet."),
    told.stops.map((one) => h("p", {}, `Stopped by ${STOPS[one.by] ?? one.by}${one.actor ? ` (${one.actor})` : ""} in attempt ${one.attempt}, event ${one.event}${one.why ? ": " : ""}`,
      typeof one.why === "string" ? one.why : one.why ? h("span.mono", {}, JSON.stringify(one.why)) : "")),
    told.ends.filter((one) => one.reason).map((one) => h("p.soft", {}, `Attempt ${one.attempt} ended ${one.status}: ${one.reason}`))];
}

/** A final result: a number, or what else was reported. */
function final(value) {
  const whole = value !== null && typeof value === "object";
  return [h("div.row", {}, whole ? null : h("span.big", {}, number(value)), h("span.soft", {}, "final result")), whole ? parameters(value) : null];
}

/** The intermediate results as a curve. */
function curve(series) {
  const values = series.map((value) => (typeof value === "number" ? value : NaN));
  const [low, high] = range(values);
  const finite = values.filter(Number.isFinite).length;
  if (finite < 2) return finite ? h("p.soft", {}, `one report: ${number(low)}`) : null;
  return [spark("intermediate results", [["line", values]]),
    h("div.soft", {}, `${values.length} reports, ${number(low)} to ${number(high)}, last ${number(series.at(-1))}`)];
}

/** stdout and stderr, read on while the trial runs. */
class Logs {
  #number;
  #stream = "stdout";
  #next = null;
  #first = 0;
  #pre = h("pre", { id: "output", tabindex: "0" });
  #note = h("div.soft", { role: "status" });
  #earlier = h("button", { onclick: () => this.#before() }, "Earlier");
  #buttons;
  #timer = 0;

  constructor(number_) {
    this.#number = number_;
    this.#buttons = ["stdout", "stderr"].map((name) => h("button", { onclick: () => this.#choose(name) }, name));
    this.element = card("Output", h("div.row", {}, this.#buttons, this.#earlier), this.#note, this.#pre);
    this.#choose("stdout");
  }

  #choose(name) {
    this.#stream = name;
    this.#next = null;
    this.#pre.textContent = "";
    for (const button of this.#buttons) button.setAttribute("aria-pressed", String(button.textContent === name));
    this.#read();
  }

  #ask(offset, limit) {
    return ask(`/api/trials/${this.#number}/log/${this.#stream}?offset=${offset}&limit=${limit}`);
  }

  async #read() {
    const stream = this.#stream;
    try {
      const found = await this.#ask(this.#next ?? -65536, 262144);
      this.#note.textContent = found.note ?? "";
      if (stream !== this.#stream || (this.#next !== null && found.text === "")) return;
      if (this.#next === null) this.#first = found.offset;
      if (!this.#next) this.#pre.textContent = "";
      const down = this.#pre.scrollTop + this.#pre.clientHeight >= this.#pre.scrollHeight - 4;
      this.#pre.append(found.text || "(nothing)\n");
      this.#next = found.next ?? 0;
      this.#earlier.hidden = this.#first === 0;
      if (down) this.#pre.scrollTop = this.#pre.scrollHeight;
    } catch (error) {
      this.#pre.textContent = error.message;
    }
  }

  async #before() {
    const from = Math.max(this.#first - 65536, 0);
    const found = await this.#ask(from, Math.max(this.#first - from, 1));
    this.#pre.prepend(found.text);
    this.#first = from;
    this.#earlier.hidden = from === 0;
  }

  follow(on) {
    clearInterval(this.#timer);
    if (on) this.#timer = setInterval(() => this.#read(), 1000);
    else if (this.#next !== null) this.#read();
  }
}
