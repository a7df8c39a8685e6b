// What the page knows: the experiment's status and its trials, kept up to date by the stream, or as of an older event.

/** Ask the portal; throws an Error with its sentence. `signal` ends the asking. */
export async function ask(path, body, signal) {
  const options = body === undefined
    ? { signal }
    : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    throw signal?.aborted ? error : new Error("the portal does not answer");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error([found.error ?? `the portal answered ${answer.status}`, found.hint].filter(Boolean).join(" — "));
    error.code = answer.status;
    throw error;
  }
  return found;
}

/** Whether a trial (a row) has ended. */
export function over(row) {
  return row.status !== "WAITING" && row.status !== "RUNNING";
}

class Store extends EventTarget {
  status = null;
  trials = new Map(); // by number, an object of the columns
  seq = 0; // the newest event that was heard of
  at = null; // an older event whose state is shown; null: now
  connection = "connecting"; // "live", "away", "locked"
  #columns = [];
  #source = null;
  #now = null;
  #showing = null;

  /** Begin to listen; goes on after every break by itself. */
  start() {
    this.#open();
  }

  #open() {
    this.#source?.close();
    const source = this.#source = new EventSource(this.seq ? `/api/stream?after=${this.seq}` : "/api/stream");
    source.addEventListener("change", (event) => this.#take(JSON.parse(event.data)));
    source.addEventListener("open", () => this.#connected("live"));
    source.addEventListener("error", () => this.#broken(source));
  }

  #broken(source) {
    this.#connected("away");
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    fetch("/api/status").then(
      (answer) => this.#connected(answer.status === 401 ? "locked" : "away"),
      () => this.#connected("away"),
    ).finally(() => setTimeout(() => this.#open(), 1000));
  }

  #connected(how) {
    if (this.connection === how) return;
    this.connection = how;
    this.dispatchEvent(new Event("connection"));
  }

  #take(message) {
    const now = this.#now ??= { status: null, trials: new Map() };
    if (message.whole) now.trials.clear();
    now.status = message.status;
    this.#columns = message.columns;
    for (const row of message.trials) now.trials.set(row[0], this.#object(row));
    this.seq = message.seq;
    this.#connected("live");
    if (this.at === null) {
      this.status = now.status;
      this.trials = now.trials;
      this.dispatchEvent(new Event("change"));
    } else {
      this.dispatchEvent(new Event("grown"));
    }
  }

  #object(row) {
    return Object.fromEntries(this.#columns.map((name, index) => [name, row[index]]));
  }

  /** Show the experiment as it was after an event; null: as it is now, and goes on. */
  async show(at) {
    this.#showing?.abort();
    const showing = this.#showing = new AbortController();
    if (at === null) {
      this.at = at;
      if (this.#now) ({ status: this.status, trials: this.trials } = this.#now);
    } else {
      let status, trials;
      try {
        [status, trials] = await Promise.all([`/api/status?at=${at}`, `/api/trials?at=${at}`].map((path) => ask(path, undefined, showing.signal)));
      } catch (error) {
        if (showing.signal.aborted) return; // another one was wanted meanwhile
        throw error;
      }
      if (showing.signal.aborted) return;
      this.at = at;
      this.#columns = trials.columns;
      this.status = status;
      this.trials = new Map(trials.rows.map((row) => [row[0], this.#object(row)]));
    }
    this.dispatchEvent(new Event("change"));
  }

  /** "?at=..." for requests that are to show the same moment. */
  get query() {
    return this.at === null ? "" : `?at=${this.at}`;
  }

  /** Whether something can be asked of an engine now. */
  get commands() {
    return this.connection === "live" && this.at === null && this.status !== null && !this.status.readonly;
  }
}

export const store = new Store();
