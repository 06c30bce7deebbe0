// What is true now: the one connection of the console, the tenant's messages for whoever shows something, and how many
// workers there are. The client (client.js) connects, comes back, and sends commands again; see clients/typescript.

import { createClient } from "./client.js";
import { parse } from "./json.js";
import { awayWords, notRead, notSent, waitsFor } from "./messages.js";

class Live {
  constructor() {
    this.wh = null;
    // Workers alive for the tenant; null while that is not known.
    this.workers = null;
    this.watchers = new Set();
    this.ends = [];
    this.covered = false;
    // A tab that was hidden has read nothing meanwhile but what its socket brought.
    document.addEventListener("visibilitychange", () => !document.hidden && this.isOpen && this.tell("looked"));
  }

  // `getToken` as the client wants it; `closed(state)`: the connection does not come back.
  start(getToken, closed) {
    this.stop();
    this.wh = createClient({ url: location.origin, getToken, parse });
    this.ends = [
      this.wh.connection.subscribe(() => {
        const state = this.wh.connection.get();
        if (state.status === "closed" && state.code !== 1000) closed(state);
        this.tell("connection");
      }),
      this.wh.watch({
        message: (message) => {
          if (typeof message.workers_online === "number" && /^(subscribed|workers_online)$/.test(message.type)) {
            this.workers = message.workers_online;
            this.tell("connection");
          }
          this.tell("message", message);
        },
        covered: () => {
          this.covered = true;
          this.tell("covered");
          this.tell("connection");
        },
        lost: () => {
          this.covered = false;
          // A connection that stands still tells when the last worker goes.
          if (this.away === null) this.workers = null;
          this.tell("lost");
        },
      }),
    ];
    this.tell("connection");
  }

  stop() {
    for (const end of this.ends) end();
    this.ends = [];
    this.covered = false;
    this.workers = null;
    this.wh?.close();
    this.wh = null;
  }

  // Whether what is shown is true now, and a command can be sent.
  get isOpen() {
    return this.wh?.connection.get().status === "open" && this.covered;
  }

  get state() {
    return this.wh?.connection.get() ?? { status: "idle" };
  }

  // What is away though the connection stands, in words; null where it is the connection itself, or nothing.
  get away() {
    const { status, reason } = this.state;
    return status === "interrupted" ? awayWords(reason) : null;
  }

  // What is said of buttons, of what could not be read, and of what was pressed while nothing is live.
  get waits() {
    return waitsFor(this.away);
  }

  get notRead() {
    return notRead(this.away);
  }

  get notSent() {
    return notSent(this.away);
  }

  // `watcher`: any of message(message), covered(), lost(), connection(), looked() (the tab is shown again), waiting() (other
  // commands wait). Gives the function that ends this.
  watch(watcher) {
    this.watchers.add(watcher);
    if (this.isOpen) watcher.covered?.();
    return () => this.watchers.delete(watcher);
  }

  tell(what, message) {
    for (const watcher of [...this.watchers]) watcher[what]?.(message);
  }

  // A request of the REST API; throws CommandError.
  ask(path, options) {
    if (!this.wh) return Promise.reject(new Error("Signed out"));
    return this.wh.request(path, options);
  }

  handle(kind, id) {
    return kind === "job" ? this.wh.job(id) : this.wh.campaign(id);
  }
}

export const live = new Live();

export const part = encodeURIComponent;

// A path with a query: empty fields are left out.
export function path(base, fields = {}) {
  const given = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length === 0 ? base : `${base}?${new URLSearchParams(given)}`;
}
