// Hosts and slots: where trials run now, for how long, what waits and why.

import { badge, card, grid, h, moment, number, show, span, trialLink } from "./dom.js";
import { store } from "./store.js";

const MOST = 200; // lines of a table

export function hosts(main) {
  const at = h("div.wide.stack", { id: "hosts" });
  main.append(at);
  const update = () => {
    const status = store.status;
    if (!status) return;
    const made = [...store.trials.values()];
    const running = made.filter((one) => one.status === "RUNNING");
    const waiting = made.filter((one) => one.status === "WAITING");
    show(at,
      card("Hosts", status.hosts.length ? grid(["host", "", "runs", "trials so far", "failed or lost there", ""], status.hosts.map((one) => {
        const there = made.filter((trial) => trial.host === one.name);
        return [one.name, h(`span.badge.${one.connected ? "DONE" : "FAILED"}`, {}, one.connected ? "connected" : "disconnected"),
          running.filter((trial) => trial.host === one.name).length, there.length,
          there.filter((trial) => ["FAILED", "LOST"].includes(trial.status)).length, one.reason || " "];
      })) : h("p.soft", {}, "No host yet.")),
      card(`Slots: ${running.length} of ${status.trial_concurrency}`,
        h("div.slots", { role: "img", "aria-label": "slots" }, Array.from({ length: Math.min(Math.max(status.trial_concurrency, running.length), 512) }, (_, index) =>
          h(running[index] ? "i.full" : "i", { title: running[index] ? `trial ${running[index].number} on ${running[index].host}` : "free" }))),
        running.length ? grid(["", "host", "pid", "attempt", "runs for", "reports", "last report", ""], running.slice(0, MOST).map((one) => [
          trialLink(one.number), one.host, one.pid, one.attempt, store.at === null ? since(one.started) : `since ${moment(one.started)}`,
          one.intermediates, one.last, one.reason || " "])) : h("p.soft", {}, "No trial runs.")),
      card(`Waiting: ${waiting.length}`, waiting.length
        ? grid(["", "", "waits for"], waiting.slice(0, MOST).map((one) => [trialLink(one.number), badge(one.status), one.reason || " "]))
        : h("p.soft", {}, "No trial waits.")),
      card(`Tuner: ${status.tuner}`, status.asking.length
        ? grid(["is asked for", ""], status.asking.map((one) => [trialLink(one.trial), one.reason || " "]))
        : h("p.soft", {}, "Nothing is asked of it.")));
  };
  const clock = setInterval(() => { if (store.at === null && store.connection === "live") update(); }, 1000);
  return { update, close: () => clearInterval(clock) };
}

function since(iso) {
  return iso ? span((Date.now() - new Date(iso)) / 1000) : number(null);
}
