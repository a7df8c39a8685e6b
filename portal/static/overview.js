// How it goes: status, progress, best, pace, what the tuner does, and what can be changed.

import { badge, card, fill, grid, h, number, pairs, parameters, show, span, spark, trialLink } from "./dom.js";
import { ask, over, store } from "./store.js";

const COLORS = {
  SUCCEEDED: "var(--good)", EARLY_STOPPED: "var(--warn)", FAILED: "var(--bad)", LOST: "var(--bad)",
  USER_CANCELED: "var(--idle)", SYS_CANCELED: "var(--idle)", RUNNING: "var(--mark)", WAITING: "var(--line)",
};
const FRONT = 12; // lines of the Pareto front

export function overview(main) {
  const places = ["warnings", "status", "best", "slots", "history", "change"].map((name) => [name, h("div", { id: `card-${name}` })]);
  const at = Object.fromEntries(places);
  for (const name of ["warnings", "history", "change"]) at[name].classList.add("wide");
  fill(main, places.map(([, place]) => place));
  fill(at.change, changes());
  return { update: () => draw(at) };
}

function draw(at) {
  const status = store.status;
  const made = [...store.trials.values()];
  const total = Math.max(status.max_trial_number ?? 1, made.length);
  const counts = Object.entries(status.counts).filter(([, n]) => n);
  const ended = made.filter(over).length;
  show(at.warnings, status.warnings.length ? card("Warnings", status.warnings.slice(-10).map((text) => h("p", {}, text))) : null);
  at.warnings.hidden = !status.warnings.length;
  show(at.status, card("Status",
    h("div.row", {}, badge(status.status), h("span.big", { id: "progress" }, `${ended}${status.max_trial_number ? ` / ${status.max_trial_number}` : ""}`), h("span.soft", {}, "trials ended")),
    status.reason ? h("p", {}, status.reason) : null,
    h("div.progress", { role: "img", "aria-label": "trials by status" }, counts.map(([name, n]) =>
      h("i", { title: `${name} ${n}`, style: { width: `${(100 * n) / total}%`, background: COLORS[name] } }))),
    pairs([
      ...counts,
      ["running for", span(status.clock)],
      ["pace", status.trials_per_hour ? `${pace(status.trials_per_hour)} trials an hour` : undefined],
      ["left, at this pace", status.eta ? span(status.eta) : undefined],
    ])));
  if (status.pareto) at.best.classList.add("wide");
  show(at.best, status.pareto ? front(status.pareto) : card("Best", status.best
    ? [h("div.row", {}, h("span.big", {}, number(status.best.value)), trialLink(status.best.trial), h("span.soft", {}, status.optimize_mode)),
      parameters(status.best.parameters)]
    : h("p.soft", {}, "No result yet.")));
  show(at.slots, slots(status, made));
  at.history.hidden = Boolean(status.pareto);
  if (!status.pareto) show(at.history, card("Results", history(made, status.optimize_mode)));
  for (const control of at.change.querySelectorAll("button, input, textarea")) control.disabled = !store.commands;
  for (const [name, value] of [["concurrency", status.trial_concurrency], ["max_trials", status.max_trial_number]]) {
    at.change.querySelector(`input[name=${name}]`).placeholder = value === null ? "no limit" : `now ${value}`;
  }
}

function pace(perHour) {
  return perHour < 1000 ? number(Math.round(perHour * 10) / 10) : Math.round(perHour).toLocaleString("en");
}

function slots(status, made) {
  const running = made.filter((one) => one.status === "RUNNING");
  const waiting = made.filter((one) => one.status === "WAITING");
  return card(`Slots: ${running.length} of ${status.trial_concurrency}`,
    running.slice(0, 8).map((one) => h("p", { key: one.number }, trialLink(one.number), ` on ${one.host} `,
      h("span.soft", {}, one.intermediates ? `${one.intermediates} reports, last ${number(one.last)}` : "no report yet"))),
    waiting.slice(0, 3).map((one) => h("p.soft", { key: one.number }, trialLink(one.number), ` waits: ${one.reason}`)),
    h("p", { key: "all" }, h("a", { href: "#hosts" }, running.length > 8 ? `all ${running.length}, and the hosts` : "hosts and slots")),
    h("h2", { key: "tuner" }, `Tuner: ${status.tuner}`),
    status.asking.length
      ? status.asking.slice(0, 5).map((one) => h("p.soft", {}, `is asked for trial ${one.trial}${one.reason ? `: ${one.reason}` : ""}`))
      : h("p.soft", {}, "nothing is asked of it"));
}

/** The Pareto front as a table: an objective a column, and the parameters. */
function front(found) {
  const keys = Object.keys(found[0]?.values ?? {});
  return card("Pareto front", h("div.row", {}, h("span.big", {}, String(found.length)), "results that no other one beats in everything ", h("a", { href: "#figures/pareto" }, "figure")),
    found.length ? grid(["", ...keys, "parameters"], found.slice(0, FRONT).map((one) => [
      trialLink(one.trial), ...keys.map((key) => one.values[key]),
      h("span.mono", {}, `${one.violation ? `fails the constraints by ${number(one.violation)} ` : ""}${JSON.stringify(one.parameters)}`)])) : null,
    found.length > FRONT ? h("p.soft", {}, `and ${found.length - FRONT} more`) : null);
}

/** The results in their order and the best so far, as a small picture. */
function history(made, mode) {
  const found = made.filter((one) => typeof one.value === "number").sort((a, b) => a.number - b.number);
  if (found.length < 2) return h("p.soft", {}, "After two results there is a curve here.");
  const values = found.map((one) => one.value);
  const sorted = Float64Array.from(values).sort();
  const cut = (share) => sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)];
  const scale = mode === "minimize" ? [sorted[0], cut(0.97)] : [cut(0.03), sorted.at(-1)];
  let best = values[0];
  const line = values.map((value) => (best = mode === "minimize" ? Math.min(best, value) : Math.max(best, value)));
  return [
    spark("results and the best so far", [["best", line]], values, scale),
    h("div.row.soft", {}, `${found.length} results, ${number(sorted[0])} to ${number(sorted.at(-1))}; the line is the best so far`),
  ];
}

/** What a person may ask of the engine. */
function changes() {
  const said = h("span.soft", { role: "status" });
  const tell = async (what, path, body) => {
    try {
      const answer = await ask(path, body);
      const counts = [["imported", "imported"], ["outside", "outside the search space"], ["without_number", "without a finite number"]]
        .filter(([key]) => answer[key]).map(([key, words]) => `${answer[key]} ${words}`);
      fill(said, `${what}: ${counts.join(", ") || "done"}`);
      return true;
    } catch (error) {
      fill(said, `${what}: ${error.message}`);
      return false;
    }
  };
  const field = (label, name, read) => {
    const set = async (event) => {
      event.preventDefault();
      if (input.value !== "" && await tell(label, "/api/update", { [name]: read(input.value) })) input.value = "";
    };
    const input = h("input", { name, size: "9", placeholder: "e.g. 2h", autocomplete: "off" });
    return h("form.row", { onsubmit: set }, h("label", {}, label, input, h("button", {}, "Set")));
  };
  const dialog = (title, name, words, begin, go) => {
    const area = h("textarea", { name, spellcheck: "false", "aria-label": title });
    const wrong = h("p", { role: "alert" });
    const box = h("dialog", {}, h("h2", {}, title), h("p.soft", {}, words), area, wrong, h("div.row", {},
      h("button", {
        onclick: async () => {
          let given;
          try { given = JSON.parse(area.value); } catch { fill(wrong, "this is not JSON"); return; }
          if (await go(given)) box.close();
          else fill(wrong, said.textContent);
        },
      }, "OK"), h("button", { onclick: () => box.close() }, "Cancel")));
    const open = h("button", {
      onclick: async () => {
        fill(wrong);
        try { area.value = JSON.stringify(await begin(), null, 1); } catch (error) { fill(said, error.message); return; }
        for (const control of box.querySelectorAll("button, textarea")) control.disabled = false;
        box.showModal();
      },
    }, title);
    return [open, box];
  };
  const best = () => store.status.best?.parameters ?? store.status.pareto?.[0]?.parameters ?? [...store.trials.values()].at(-1)?.parameters ?? {};
  const stop = (force) => confirm(force ? "Stop now, without grace for the trials?" : "Stop the experiment? tune resume goes on with it.")
    && tell("stop", "/api/stop", { force });
  return card("Change it",
    h("div.row", {}, field("Concurrency", "concurrency", Number), field("Trials at most", "max_trials", Number), field("Duration at most", "duration", String)),
    h("div.row", {},
      dialog("Add a trial", "parameters", "It runs with these parameters, before the tuner's own.", best, (given) => tell("trial", "/api/trials", { parameters: given })),
      dialog("Search space", "space", "The tuner searches this space from now on.", async () => (await ask("/api/config")).search_space, (given) => tell("search space", "/api/update", { search_space: given })),
      dialog("Import results", "results", "Results from elsewhere, for the tuner.", () => [{ parameter: best(), value: store.status.best?.value ?? 0 }], (given) => tell("results", "/api/import", given)),
      h("button.danger", { name: "stop", onclick: () => stop(false) }, "Stop"),
      h("button.danger", { name: "force", onclick: () => stop(true) }, "Stop now"),
      said));
}
