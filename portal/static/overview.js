// How it goes: status, progress, best, pace, what the tuner does, hosts, and what can be changed.

import { badge, card, fill, h, number, pairs, s, span } from "./dom.js";
import { ask, store } from "./store.js";

const COLORS = {
  SUCCEEDED: "var(--good)", EARLY_STOPPED: "var(--warn)", FAILED: "var(--bad)", LOST: "var(--bad)",
  USER_CANCELED: "var(--idle)", SYS_CANCELED: "var(--idle)", RUNNING: "var(--mark)", WAITING: "var(--line)",
};

export function overview(main) {
  const places = ["status", "best", "history", "slots", "change", "warnings"].map((name) => [name, h("div", { id: `card-${name}` })]);
  const at = Object.fromEntries(places);
  at.history.classList.add("wide");
  at.change.classList.add("wide");
  fill(main, places.map(([, place]) => place));
  fill(at.change, changes());
  return { update: () => draw(at) };
}

function draw(at) {
  const status = store.status;
  const made = [...store.trials.values()];
  const total = status.max_trial_number ?? Math.max(made.length, 1);
  const over = made.filter((one) => !["WAITING", "RUNNING"].includes(one.status)).length;
  fill(at.status, card("Status",
    h("div.row", {}, badge(status.status), h("span.big", { id: "progress" }, `${over}${status.max_trial_number ? ` / ${status.max_trial_number}` : ""}`), h("span.soft", {}, "trials ended")),
    status.reason ? h("p", {}, status.reason) : null,
    h("div.progress", { role: "img", "aria-label": "trials by status" }, Object.entries(status.counts).filter(([, n]) => n).map(([name, n]) =>
      h("i", { title: `${name} ${n}`, style: { width: `${(100 * n) / Math.max(total, made.length)}%`, background: COLORS[name] } }))),
    pairs([
      ...Object.entries(status.counts).filter(([, n]) => n).map(([name, n]) => [name, n]),
      ["running for", span(status.clock)],
      ["pace", status.trials_per_hour ? `${number(Math.round(status.trials_per_hour * 10) / 10)} trials an hour` : undefined],
      ["left, at this pace", status.eta ? span(status.eta) : undefined],
    ])));
  const pareto = status.pareto;
  fill(at.best, pareto ? card("Pareto front", h("div.row", {}, h("span.big", {}, String(pareto.length)), "trials that no other beats in everything"),
    pareto.slice(0, 8).map((one) => h("p", {}, h("a", { href: `#trial/${one.trial}` }, `trial ${one.trial}`), " ", h("span.mono", {}, JSON.stringify(one.values)))))
    : card("Best", status.best
      ? [h("div.row", {}, h("span.big", {}, number(status.best.value)), h("a", { href: `#trial/${status.best.trial}` }, `trial ${status.best.trial}`), h("span.soft", {}, status.optimize_mode)),
        h("pre", {}, JSON.stringify(status.best.parameters, null, 1))]
      : h("p.soft", {}, "No result yet.")));
  fill(at.history, card("Results", history(made, status.optimize_mode)));
  const running = made.filter((one) => one.status === "RUNNING");
  fill(at.slots, card(`Slots: ${running.length} of ${status.trial_concurrency}`,
    running.slice(0, 32).map((one) => h("p", {}, h("a", { href: `#trial/${one.number}` }, `trial ${one.number}`), ` on ${one.host} `,
      h("span.soft", {}, one.intermediates ? `${one.intermediates} reports, last ${number(one.last)}` : "no report yet"))),
    made.filter((one) => one.status === "WAITING").slice(0, 5).map((one) => h("p.soft", {}, `trial ${one.number} waits: ${one.reason}`)),
    h("h2", {}, `Tuner: ${status.tuner}`),
    status.asking.length ? status.asking.slice(0, 5).map((one) => h("p.soft", {}, `asked for trial ${one.trial}${one.reason ? `: ${one.reason}` : ""}`)) : h("p.soft", {}, "nothing is asked of it"),
    h("h2", {}, "Hosts"),
    status.hosts.map((one) => h("p", {}, one.name, " ", h("span.soft", {}, one.connected ? "connected" : `disconnected${one.reason ? `: ${one.reason}` : ""}`)))));
  fill(at.warnings, status.warnings.length ? card("Warnings", status.warnings.slice(-10).map((text) => h("p", {}, text))) : null);
  for (const control of at.change.querySelectorAll("button, input, textarea")) control.disabled = !store.commands;
}

/** The results in their order and the best so far, as a small picture. */
function history(made, mode) {
  const found = made.filter((one) => typeof one.value === "number").sort((a, b) => a.number - b.number);
  if (found.length < 2) return h("p.soft", {}, "After two results there is a curve here.");
  const values = found.map((one) => one.value);
  const sorted = [...values].sort((a, b) => a - b);
  const cut = (share) => sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)];
  const low = mode === "minimize" ? sorted[0] : cut(0.03), high = mode === "minimize" ? cut(0.97) : sorted.at(-1);
  const x = (index) => (1000 * index) / Math.max(values.length - 1, 1);
  const y = (value) => 110 - (100 * (Math.min(Math.max(value, low), high) - low)) / (high - low || 1);
  let best = values[0];
  const line = values.map((value, index) => {
    best = mode === "minimize" ? Math.min(best, value) : Math.max(best, value);
    return `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(best).toFixed(1)}`;
  }).join("");
  const step = Math.max(1, Math.ceil(values.length / 1500));
  return [
    s("svg", { class: "spark", viewBox: "0 0 1000 120", preserveAspectRatio: "none", role: "img", "aria-label": "results and the best so far" },
      values.map((value, index) => (index % step ? null : s("circle", { cx: x(index).toFixed(1), cy: y(value).toFixed(1), r: 2 }))),
      s("path", { class: "best", d: line })),
    h("div.row.soft", {}, `${found.length} results, ${number(Math.min(...sorted.slice(0, 1)))} to ${number(sorted.at(-1))}; the line is the best so far`),
  ];
}

function changes() {
  const said = h("span.soft", { role: "status" });
  const run = (what, path, body) => async () => {
    try {
      await ask(path, body());
      fill(said, `${what}: done`);
    } catch (error) {
      fill(said, error.message);
    }
  };
  const field = (label, name, key, read) => {
    const input = h("input", { name, size: "8", placeholder: "new value" });
    return h("label", {}, label, input, h("button", { onclick: run(label, "/api/update", () => ({ [key]: read(input.value) })) }, "Set"));
  };
  const parameters = h("textarea", { name: "parameters", spellcheck: "false" }, "{}");
  const space = h("textarea", { name: "space", spellcheck: "false" }, "");
  const dialog = (title, area, go) => {
    const box = h("dialog", {}, h("h2", {}, title), area, h("div.row", {},
      h("button", { onclick: async () => { await go(); box.close(); } }, "OK"), h("button", { onclick: () => box.close() }, "Cancel")));
    document.body.append(box);
    return box;
  };
  const parsed = (area) => { try { return JSON.parse(area.value); } catch { throw new Error("this is not JSON"); } };
  const adding = dialog("Run a trial with these parameters", parameters, run("trial", "/api/trials", () => ({ parameters: parsed(parameters) })));
  const spacing = dialog("Search this space from now on", space, run("search space", "/api/update", () => ({ search_space: parsed(space) })));
  return card("Change it", h("div.row", {},
    field("Concurrency", "concurrency", "concurrency", Number),
    field("Trials at most", "max_trials", "max_trials", Number),
    field("Duration at most", "duration", "duration", String),
    h("button", { onclick: () => { if (store.status.best) parameters.value = JSON.stringify(store.status.best.parameters, null, 1); adding.showModal(); } }, "Add a trial"),
    h("button", { onclick: async () => { space.value = JSON.stringify((await ask("/api/config")).search_space, null, 1); spacing.showModal(); } }, "Search space"),
    h("button.danger", { name: "stop", onclick: () => confirm("Stop the experiment? tune resume goes on with it.") && run("stop", "/api/stop", () => ({}))() }, "Stop"),
    said));
}
