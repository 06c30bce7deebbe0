// Which jobs and campaigns have a socket: those in view and those with something going on, thirty at most.
// The rest is kept fresh by the polled lists. Sockets of what has ended are closed.

import { isFinal } from "./model.js";
import { ResourceSocket } from "./socket.js";

const MOST = 30;
// Handshakes at once; a console that opens must not look like an attack.
const CONNECTING = 4;
// A row scrolled out of view keeps its socket this long: scrolling back and forth costs nothing.
const LINGER = 15_000;
// After its end, for a result that is still on the way.
const AFTER_END = 3_000;

const WEIGHT = { running: 3, active: 3, paused: 2, pending: 1 };

export class Pool {
  // `on`: message(item, message), open(item), down(item, code, opened), terminal(item, code), state()
  constructor(model, on) {
    this.model = model;
    this.on = on;
    this.sockets = new Map();
    this.blocked = new Set();
    this.timer = null;
    this.running = false;
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  start() {
    this.running = true;
    this.soon();
  }

  // Closes all; `start` opens them again, with the token of then.
  stop() {
    this.running = false;
    clearTimeout(this.timer);
    this.timer = null;
    for (const socket of this.sockets.values()) {
      socket.close();
      socket.item.live = false;
      this.model.changed(socket.item);
    }
    this.sockets.clear();
    this.blocked.clear();
    this.on.state();
  }

  // The page just woke or went online: no point in waiting out a pause from before.
  hurry() {
    for (const socket of this.sockets.values()) {
      if (socket.state === "waiting") socket.retryAt = Math.min(socket.retryAt, Date.now() + Math.random() * 500);
    }
    this.soon();
  }

  // Nothing of this kind is tried again until `unblock`.
  block(kind) {
    this.blocked.add(kind);
    for (const [key, socket] of this.sockets) {
      if (socket.item.kind !== kind) continue;
      socket.close();
      socket.item.live = false;
      this.sockets.delete(key);
    }
    this.soon();
  }

  unblock(kind) {
    if (this.blocked.delete(kind)) this.soon();
  }

  isOpen(item) {
    return this.sockets.get(item.key)?.state === "open";
  }

  send(item, message) {
    const socket = this.sockets.get(item.key);
    return socket?.state === "open" && socket.send(message);
  }

  sendAll(message) {
    for (const socket of this.sockets.values()) if (socket.state === "open") socket.send(message);
  }

  counts() {
    let open = 0;
    let soonest = Infinity;
    let failed = 0;
    for (const socket of this.sockets.values()) {
      if (socket.state === "open") open += 1;
      if (socket.state === "waiting") soonest = Math.min(soonest, socket.retryAt);
      if (socket.tries > 0 && socket.state !== "open") failed += 1;
    }
    return { wanted: this.sockets.size, open, failed, soonest };
  }

  soon(wait = 100) {
    if (!this.running || this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.choose();
    }, wait);
  }

  choose() {
    if (!this.running) return;
    const now = Date.now();
    const wanted = [];
    for (const item of this.model.items.values()) {
      if (this.blocked.has(item.kind) || item.gone) continue;
      if (item.visible || item.pinned > 0 || item.requests.length > 0) item.lastWanted = now;
      if (isFinal(item)) {
        item.endedAt ??= now;
        // Only what was live needs the moment after its end.
        if (!this.sockets.has(item.key) || (now - item.endedAt > AFTER_END && item.requests.length === 0)) continue;
      } else if (now - (item.lastWanted ?? -Infinity) > LINGER) {
        continue;
      }
      wanted.push([this.weigh(item), item]);
    }
    wanted.sort((a, b) => b[0] - a[0]);
    const keep = new Set(wanted.slice(0, MOST).map(([, item]) => item.key));
    for (const [key, socket] of this.sockets) {
      if (keep.has(key)) continue;
      socket.close();
      socket.item.live = false;
      this.sockets.delete(key);
      this.model.changed(socket.item);
    }
    let connecting = 0;
    for (const socket of this.sockets.values()) if (socket.state === "connecting") connecting += 1;
    for (const [, item] of wanted.slice(0, MOST)) {
      let socket = this.sockets.get(item.key);
      if (!socket) {
        socket = this.make(item);
        this.sockets.set(item.key, socket);
      }
      const due = socket.state === "idle" || (socket.state === "waiting" && socket.retryAt <= now);
      if (due && connecting < CONNECTING) {
        connecting += 1;
        socket.connect();
      }
    }
    this.on.state();
    // Linger, ends and pauses run out without an event.
    this.soon(this.sockets.size > 0 ? 500 : 2_000);
  }

  weigh(item) {
    return (item.requests.length > 0 ? 100 : 0) + (item.pinned > 0 ? 50 : 0) + (item.visible ? 20 : 0)
      + (item.kind === "campaign" ? 4 : 0) + (WEIGHT[item.row.status] ?? 0) + (this.isOpen(item) ? 0.5 : 0);
  }

  make(item) {
    return new ResourceSocket(item, {
      open: () => {
        item.live = true;
        this.on.open(item);
        this.next();
      },
      message: (message) => this.on.message(item, message),
      down: (code, reason, wait, opened) => {
        item.live = false;
        this.model.changed(item);
        this.on.down(item, code, opened);
        this.next();
      },
      terminal: (code) => {
        item.live = false;
        this.model.changed(item);
        this.sockets.delete(item.key);
        this.on.terminal(item, code);
        this.next();
      },
    });
  }

  // A place among those connecting is free: the next one need not wait for the clock.
  next() {
    clearTimeout(this.timer);
    this.timer = null;
    this.soon(20);
  }
}
